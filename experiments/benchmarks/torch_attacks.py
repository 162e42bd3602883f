"""The reference AutoAttack (pyautoattack) and PGD in PyTorch, on a timm network with our weights or on our model through a bridge."""
import time

import jax
import numpy as np

from experiments.benchmarks.timing import Skip, rounded
from vmamba_jax import checkpoints
from vmamba_jax.models.baselines.resnet import ResNet

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def attacked(which, attack, model, images, labels, batch, seed):
    """Run an attack in torch on a torch module.

    Args:
        which: "autoattack" or "pgd".
        attack: our attack, whose settings torch uses.
        model: `twin` or `bridge`.
        images: (n, H, W, C) float32 in [0, 1].
        labels: (n,) integers.
        batch: images per batch.
        seed: of torch's draws.

    Returns:
        ({"seconds", "images_per_s", "devices", "accuracy", "robust_accuracy"}, (n,) bool: robust images).

    Raises:
        Skip: torch or pyautoattack is not installed.
    """
    try:
        import torch
        from pyautoattack.autoattack import AutoAttack
    except ImportError as error:
        raise Skip(f"{which} by torch: {error}") from error
    x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(batch)]) == y
    since = time.perf_counter()
    if which == "autoattack":
        reference = AutoAttack(model, norm=NORMS[attack.norm], eps=attack.eps, version=attack.version, seed=seed)
        reference.verbose = False
        adversarial, _ = reference.run_standard_evaluation(x, y, batch_size=batch)
    else:
        torch.manual_seed(seed)
        adversarial = torch.cat([pgd(model, *pair, attack) for pair in zip(x.split(batch), y.split(batch), strict=True)])
    seconds = time.perf_counter() - since
    with torch.no_grad():
        robust = right & (torch.cat([model(part).argmax(1) for part in adversarial.split(batch)]) == y)
    return {"seconds": rounded(seconds), "images_per_s": rounded(len(x) / seconds), "devices": 1, "accuracy": float(right.float().mean()),
            "robust_accuracy": float(robust.float().mean())}, robust.numpy()


def twin(classifier, variables):
    """A timm network from [0, 1] images (n, C, H, W) to logits, with the same weights; raises Skip if timm lacks the model or is not installed."""
    try:
        import timm
        import torch
    except ImportError as error:
        raise Skip(f"torch's network of the same weights: {error}") from error
    net = classifier.model
    if not isinstance(net, ResNet):
        raise Skip(f"{type(net).__name__}: only ResNets have a timm network with the same layers here")
    block = {"basic": timm.models.resnet.BasicBlock, "bottleneck": timm.models.resnet.Bottleneck}[net.block]
    padded = tuple(net.layers) + (1,) * (4 - len(net.layers))                       # timm requires four stages
    model = timm.models.resnet.ResNet(block, padded, num_classes=net.num_classes, channels=tuple(net.channels) + (8,) * (4 - len(net.layers)))
    for i in range(len(net.layers), 4):
        setattr(model, f"layer{i + 1}", torch.nn.Identity())
    if net.stem == "cifar":
        model.conv1, model.maxpool = torch.nn.Conv2d(net.in_channels, net.stem_width, 3, 1, 1, bias=False), torch.nn.Identity()
    elif net.stem_width != 64:
        raise Skip(f"stem_width={net.stem_width}: timm's plain stem has 64 channels")
    state_dict = checkpoints.to_state_dict(net, variables)
    model.fc = torch.nn.Linear(*state_dict["fc.weight"].shape[::-1])
    if net.stem_width != 64:
        model.bn1 = torch.nn.BatchNorm2d(net.stem_width)
        first = getattr(model.layer1, "0")
        width = state_dict["layer1.0.conv1.weight"].shape
        first.conv1 = torch.nn.Conv2d(width[1], width[0], width[2], 1, width[2] // 2, bias=False)
        first.downsample = None if "layer1.0.downsample.0.weight" not in state_dict else first.downsample
    missing, unexpected = model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in state_dict.items()}, strict=False)
    if unexpected or [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise Skip(f"timm's network has other weights: missing {missing}, unexpected {unexpected}")
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (classifier.mean, classifier.std))

    class Normalized(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return self.net((x - mean) / std)
    return Normalized().eval().requires_grad_(False)


def bridge(logits_fn, rows):
    """Our model as a torch module from [0, 1] images (n, C, H, W) to logits, differentiated by JAX; batches are padded to `rows`."""
    try:
        import torch
    except ImportError as error:
        raise Skip(f"torch driving our model: {error}") from error
    forward = jax.jit(lambda x: logits_fn(x))
    backward = jax.jit(lambda x, g: jax.vjp(logits_fn, x)[1](g)[0])

    def padded(array):
        array = array.detach().numpy()
        return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))

    class Logits(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.images = padded(x).transpose(0, 2, 3, 1)
            return torch.from_numpy(np.array(forward(ctx.images))[:len(x)])

        @staticmethod
        def backward(ctx, g):
            return torch.from_numpy(np.array(backward(ctx.images, padded(g))).transpose(0, 3, 1, 2)[:len(g)])

    class Bridge(torch.nn.Module):
        def forward(self, x):
            return Logits.apply(x)
    return Bridge()


def pgd(model, x, y, attack):
    """PGD in linf from a random start, on images (b, C, H, W), with the radius, step size and steps of our attack."""
    import torch
    z = (x + attack.eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(attack.steps):
        z.requires_grad_()
        gradient, = torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
        z = (z.detach() + attack.step_size * gradient.sign()).clamp(min=x - attack.eps, max=x + attack.eps).clamp(0, 1)
    return z.detach()
