"""PyTorch modules as classifiers, by callbacks to the host. PyTorch is not a dependency of this package.

The module runs where its parameters are, on whole batches, in evaluation mode; each gradient of an attack is one more forward and a backward pass
of PyTorch. This is slow: for large evaluations convert the weights (`checkpoints.convert`) or export the module to StableHLO.
"""
import contextlib
import dataclasses
import sys
import threading

import jax
import numpy as np

from vmamba_jax.bridges.host import HostFunction
from vmamba_jax.core import checks

LAYOUTS = ("NCHW", "NHWC")


def is_module(value):
    """Whether `value` is a `torch.nn.Module`; PyTorch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "nn") and isinstance(value, torch.nn.Module)


def logits_fn(module, layout="NCHW"):
    """Function images (b, H, W, C) -> logits (b, classes) of a PyTorch module, for compiled programs, with gradients in the images.

    Every call uses the module's weights of that time. Images, logits and gradients are float32. Dropout and batch norm are in evaluation mode during
    each call, whatever the module's mode, which is restored after it; weights and their gradients are never changed. Second derivatives
    and forward mode are not supported.

    Args:
        module: `torch.nn.Module` with float32 parameters, called with one batch, that returns logits (b, classes).
        layout: axes of the module's batch, "NCHW" or "NHWC"; images are NHWC here and transposed for "NCHW".

    Raises:
        ImportError: PyTorch is not installed. TypeError: no module, or parameters of another type. ValueError: an unknown layout.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("no module named 'torch': expected PyTorch for vmamba_jax.bridges.torch; pip install torch") from None
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module={type(module).__name__}: expected a torch.nn.Module")
    checks.choice("layout", layout, LAYOUTS)
    wrong = {str(p.dtype) for p in module.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    if wrong:
        raise TypeError(f"module has parameters of type {', '.join(sorted(wrong))}: expected torch.float32 (module.float())")
    return jax.jit(TorchFunction(module, layout))  # no retrace in evaluations: the callbacks read the weights when they run


class TorchFunction(HostFunction):
    """The `HostFunction` of a PyTorch module, see `logits_fn`."""

    def __init__(self, module, layout):
        self.module, self.layout = module, layout
        host = _Host(module, layout)
        super().__init__(host.forward, host.vjp)

    def __identity__(self):
        """What `evaluation.identity` digests: architecture, code, and weights of this time."""
        weights = {name: x.detach().cpu().numpy() for name, x in self.module.state_dict().items() if hasattr(x, "detach")}
        types = sorted({type(each) for each in self.module.modules()}, key=lambda each: (each.__module__, each.__qualname__))
        return repr(self.module), types, weights, self.layout


@dataclasses.dataclass(frozen=True)
class _Host:
    """Forward and backward passes of a PyTorch module on NumPy arrays; one call at a time, because they set the module's mode."""
    module: object
    layout: str
    lock: object = dataclasses.field(default_factory=threading.RLock)

    def forward(self, images):
        import torch
        with self.lock, _evaluating(self.module), torch.no_grad():
            return self._logits(self._tensor(images)).cpu().numpy()

    def vjp(self, images, cotangents):
        import torch
        with self.lock, _evaluating(self.module), torch.enable_grad():
            x = self._tensor(images).requires_grad_()
            logits = self._logits(x)
            gradient = torch.autograd.grad(logits, x, torch.from_numpy(cotangents).to(logits.device), allow_unused=True)[0]
        if gradient is None:
            return np.zeros_like(images)
        gradient = gradient.permute(0, 2, 3, 1) if self.layout == "NCHW" else gradient
        return gradient.cpu().contiguous().numpy()

    def _tensor(self, images):
        import torch
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        x = torch.from_numpy(images).to(device)
        return x.permute(0, 3, 1, 2).contiguous() if self.layout == "NCHW" else x

    def _logits(self, x):
        import torch
        logits = self.module(x)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"the module returned {found}: expected one tensor of logits (batch, classes)")
        return logits.float()


@contextlib.contextmanager
def _evaluating(module):
    """Evaluation mode of a module and of all modules in it; the modes are restored at the end."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True
