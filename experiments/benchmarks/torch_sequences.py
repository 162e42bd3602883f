"""S4, DSS, S5 and Mamba layers in plain torch, from our weights: what one would write without a kernel, on the CPU.

The convolutions are torch's FFT, the recurrences loops over the steps, as in mamba-ssm's reference.
"""
import numpy as np


def program(name, variables, u, dy, which):
    """A function that computes the layer's output of u, and with which="gradient" also the gradient of <y, dy> with respect to u."""
    import torch
    params = {key: _tensors(torch, tree) for key, tree in variables.items()}
    x, cotangent = torch.from_numpy(u), torch.from_numpy(dy)

    def forward():
        with torch.inference_mode():
            return LAYERS[name](torch, params, x)

    def gradient():
        leaf = x.detach().requires_grad_()
        y = LAYERS[name](torch, params, leaf)
        return y, torch.autograd.grad(y, leaf, cotangent)[0]
    return forward if which == "forward" else gradient


def _tensors(torch, tree):
    return {key: _tensors(torch, x) for key, x in tree.items()} if isinstance(tree, dict) else torch.from_numpy(np.array(tree))


def _convolve(torch, u, kernel, D, linear):
    size = 2 * u.shape[1]
    spectrum = torch.fft.rfft(u.transpose(1, 2), n=size) * torch.fft.rfft(kernel, n=size)
    y = torch.fft.irfft(spectrum, n=size)[..., :u.shape[1]].transpose(1, 2) + D * u
    return y @ linear["kernel"] + linear["bias"]


def _s4(torch, variables, u):
    p, length = variables["params"], 1 << (u.shape[1] - 1).bit_length()
    w = torch.complex(-torch.exp(variables["constants"]["log_w_real"]), p["w_imag"])
    P, B, C = (torch.view_as_complex(p[name]) for name in ("P", "B", "C"))
    dt = torch.exp(p["log_dt"])
    z = torch.exp(-2j * np.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length).to(torch.complex64)
    g = lambda w: 2 * dt[:, None, None] / (2 * (1 - z)[:, None] - dt[:, None, None] * w * (1 + z)[:, None])    # (H, F, N/2)
    own, conjugate = g(w), g(w.conj())
    total = lambda v: (own * v).sum(-1) + (conjugate * v.conj()).sum(-1)
    cb, qb, cp, qp = total((C * B)[:, None]), total(P.conj() * B), total((C * P)[:, None]), total(P.conj() * P)
    kernel = torch.fft.irfft(cb - qb * cp * (1 + z) / 2 / (1 + qp * (1 + z) / 2), n=length)[:, :u.shape[1]]
    return _convolve(torch, u, kernel, p["D"], p["output_linear"])


def _dss(torch, variables, u):
    p, length = variables["params"], u.shape[1]
    w, C = torch.view_as_complex(p["w"]), torch.view_as_complex(p["C"])
    step = torch.exp(p["log_dt"])[:, None] * w
    growing = w.real > 0
    falling = torch.where(growing, -step, step)
    q = w * (torch.exp(falling * length) - 1)
    weights = C * (torch.exp(falling) - 1) * q.conj() / (q.abs()**2 + 1e-7)
    lags = torch.arange(length) - growing[:, None] * (length - 1)
    kernel = torch.einsum("hn,hnl->hl", weights, torch.exp(step[..., None] * lags)).real
    return _convolve(torch, u, kernel, p["D"], p["output_linear"])


def _s5(torch, variables, u):
    p = variables["params"]
    Lambda, B, C = (torch.view_as_complex(p[name]) for name in ("Lambda", "B", "C"))
    decay = torch.exp(Lambda * torch.exp(p["log_step"]))
    inputs = u.to(torch.complex64) @ (((decay - 1) / Lambda)[:, None] * B).T
    x, states = torch.zeros_like(inputs[:, 0]), []
    for t in range(u.shape[1]):
        x = decay * x + inputs[:, t]
        states.append(x)
    return (torch.stack(states, 1) @ C.T).real + p["D"] * u


def _s6(torch, variables, u):
    p, functional = variables["params"]["mixer"], torch.nn.functional
    x, z = (u @ p["in_proj"]["kernel"]).chunk(2, -1)
    kernel = p["conv1d"]["kernel"].permute(2, 1, 0)
    c = functional.conv1d(x.transpose(1, 2), kernel, p["conv1d"]["bias"], padding=kernel.shape[-1] - 1, groups=kernel.shape[0])
    c = functional.silu(c[..., :u.shape[1]].transpose(1, 2))
    A, rank = -torch.exp(p["A_log"]), p["dt_proj"]["kernel"].shape[0]
    dt, B, C = (c @ p["x_proj"]["kernel"]).split([rank, A.shape[1], A.shape[1]], -1)
    dt = functional.softplus(dt @ p["dt_proj"]["kernel"] + p["dt_proj"]["bias"])
    h, outputs = torch.zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * c[:, t])[..., None] * B[:, t, None]
        outputs.append((h * C[:, t, None]).sum(-1))
    return ((torch.stack(outputs, 1) + p["D"] * c) * functional.silu(z)) @ p["out_proj"]["kernel"]


LAYERS = {"s4": _s4, "dss": _dss, "s5": _s5, "s6": _s6}
