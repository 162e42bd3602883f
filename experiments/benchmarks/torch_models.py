"""timm's PyTorch models as candidates: the same batch, size, dtype and device as ours, each in its faster memory layout."""
import importlib.metadata

import jax

from experiments.benchmarks.compiled import first_line
from experiments.benchmarks.timing import Case, Skip
from experiments.common import environment
from experiments.common.cli import ConfigError

PASSES = ("forward", "gradient")
PACKAGES = ("torch", "timm")


def require(section, timm_too=True):
    """Import torch and timm, set torch's number of threads to the cores, and return their versions.

    Args:
        section: config.against.
        timm_too: False: torch alone is needed.

    Raises:
        ConfigError: they are not installed, lack a model, or would use another device than JAX.
    """
    packages = PACKAGES if timm_too else PACKAGES[:1]
    try:
        import torch
        if timm_too:
            import timm
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(f"--against torch: {' and '.join(packages)} do not import here ({first_line(error)}); pip install {' '.join(packages)}") from error
    torch.set_num_threads(environment.cores())
    backend, cuda = jax.default_backend(), torch.cuda.is_available()
    if backend != "cpu" and not (backend == "gpu" and cuda):
        raise ConfigError(f"--against torch: JAX uses a {backend} that this torch cannot use; expected JAX on the CPU, or a CUDA build of torch")
    for field, known in (("models", timm.list_models()), ("passes", PASSES)) if timm_too else ():
        if unknown := [name for name in section[field] if name not in known]:
            raise ConfigError(f"config.against.{field}={unknown[0]!r}: expected {'models of timm' if field == 'models' else ' or '.join(PASSES)}")
    if backend == "gpu" and len(jax.devices()) > 1:
        raise ConfigError(f"--against torch: JAX uses {len(jax.devices())} GPUs and torch one; run with CUDA_VISIBLE_DEVICES=0")
    return {name: importlib.metadata.version(name) for name in packages}


def case(name, which, batch, size, dtype, seed):
    """The `Case` of a timm model: `forward`, or `gradient` of the summed cross entropy with respect to the images."""
    import timm
    import torch
    device, kind = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu"), getattr(torch, dtype)
    wait = (lambda out: torch.cuda.synchronize()) if device.type == "cuda" else (lambda out: None)
    torch.manual_seed(seed)
    try:
        model = timm.create_model(name, pretrained=False).eval().requires_grad_(False).to(device, kind)
        images, labels = torch.rand(batch, 3, size, size, dtype=kind, device=device), torch.arange(batch, device=device) % 2
        record = {"what": "model", "name": name, "backend": "torch", "pass": which, "batch": batch, "size": size, "dtype": dtype}
        made = [_laid_out(record, model, images, labels, layout, wait) for layout in ("contiguous_format", "channels_last")]
        return min(made, key=trial)
    except (RuntimeError, AssertionError) as error:
        raise Skip(f"{name} torch {which}: {first_line(error)}") from error


def _laid_out(record, model, images, labels, layout, wait):
    import torch
    images = images.contiguous(memory_format=getattr(torch, layout))

    def use():  # the layout is the model's state, which another candidate may have changed
        if model.memory_layout != layout:
            model.to(memory_format=getattr(torch, layout))
            model.memory_layout = layout

    def forward():
        use()
        with torch.inference_mode():
            return model(images)

    def gradient():
        use()
        x = images.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x).float(), labels, reduction="sum")
        return torch.autograd.grad(loss, x)[0]

    model.memory_layout = ""
    run = forward if record["pass"] == "forward" else gradient
    return Case(record | {"layout": layout, "devices": 1}, run, wait=wait, images=len(labels))


def trial(case):
    """Seconds of the faster of two calls, after one warm-up call."""
    case.seconds(1)
    return min(case.seconds(1), case.seconds(1))
