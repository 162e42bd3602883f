"""What a device check compares with: `lax.associative_scan`, jax-linear-attention, timm's models in torch, and mamba-ssm's CUDA scan."""
import functools
import os
import pathlib

import jax
import jax.numpy as jnp

MODELS = ("swin_tiny_patch4_window7_224", "convnext_tiny")


def associative(x):
    """The selective scan as one writes it without a kernel; one state, one group."""
    u, dt = x["u"].astype(jnp.float32), jax.nn.softplus(x["delta"].astype(jnp.float32) + x["delta_bias"])
    join = lambda first, second: (second[0] * first[0], second[0] * first[1] + second[1])
    _, h = jax.lax.associative_scan(join, (jnp.exp(dt * x["A"][:, 0]), dt * x["B"][:, :, 0] * u), axis=1)
    return (x["C"][:, :, 0] * h + x["D"] * u).astype(x["u"].dtype)


def linear_attention():
    """jax-linear-attention's Mamba-1 scan (package `jla`) of a tree q, k, v, dt, a, d, dt_bias; None where it is not installed."""
    try:
        from jla.ops.mosaic_gpu.mamba1 import mamba1
    except ImportError:
        return None
    return lambda x: mamba1(**x | {"a": -jnp.exp(x["a"]), "dt": x["dt"] - 2}, dt_softplus=True)[0]


def torch_models(batch, size, record, timed):
    """Record images per second of timm's models in bfloat16 on the GPU, forward and with the input gradient."""
    import timm
    import torch
    place = {"dtype": torch.bfloat16, "device": "cuda", "memory_format": torch.channels_last}
    for name in MODELS:
        model, images = timm.create_model(name).eval().requires_grad_(False).to(**place), torch.rand(batch, 3, size, size).to(**place)
        facts, variable = {"what": "model", "by": f"{name} (torch)", "images": batch, "size": size, "dtype": "bfloat16"}, images.clone().requires_grad_()

        def gradient(model=model, variable=variable):
            return torch.autograd.grad(-model(variable).float().log_softmax(-1)[:, 0].sum(), variable)

        with torch.inference_mode():
            record(facts | {"pass": "forward"}, timed(functools.partial(model, images), lambda _: torch.cuda.synchronize()))
        record(facts | {"pass": "forward + gradient"}, timed(gradient, lambda _: torch.cuda.synchronize()))


def build_mamba(folder):
    """Compile mamba-ssm's selective scan from its unpacked sources, for compute capability 9.0. Raises ValueError without the sources."""
    sources = sorted(path for path in (pathlib.Path(folder) / "csrc" / "selective_scan").glob("*") if path.suffix in (".cu", ".cpp"))
    if not sources:
        raise ValueError(f"--mamba={folder}: expected mamba-ssm's sources, got no csrc/selective_scan/*.cu")
    from torch.utils import cpp_extension
    os.environ.update(TORCH_CUDA_ARCH_LIST="9.0", MAX_JOBS=str(os.cpu_count()))
    flags = ["-O3", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda"]
    flags += [f"-U__CUDA_NO_{number}_{what}__" for number in ("HALF", "BFLOAT16") for what in ("OPERATORS", "CONVERSIONS")]
    return cpp_extension.load("selective_scan_cuda", [str(path) for path in sources], extra_cuda_cflags=flags)


def mamba_scans(module, sizes, record, timed, copy_rate):
    """Record mamba-ssm's CUDA scan at (batch, length, channels, state) sizes in bfloat16, forward and with the gradient of every input."""
    import torch
    wait = lambda _: torch.cuda.synchronize()
    wide = lambda *size: torch.randn(*size, device="cuda")
    narrow = lambda *size: wide(*size).to(torch.bfloat16)
    for batch, length, channels, state in sizes:
        u, delta, dy = (narrow(batch, channels, length) for _ in range(3))
        B, C = (narrow(batch, 1, state, length) for _ in range(2))
        args = u, delta, -wide(channels, state).exp(), B, C, wide(channels), None, wide(channels) - 2
        facts = {"what": "selective_scan", "by": "mamba-ssm (CUDA)", "size": [batch, length, channels], "state": state, "dtype": "bfloat16"}
        forward = functools.partial(module.fwd, *args, True)

        def both(args=args, dy=dy, forward=forward):
            return module.bwd(*args, dy, forward()[1], None, None, True, False)

        record(facts | {"pass": "forward", "bytes": 6 * u.numel()}, timed(forward, wait), copy_rate())
        record(facts | {"pass": "forward + gradient", "bytes": 16 * u.numel()}, timed(both, wait), copy_rate())
