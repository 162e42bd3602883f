"""One step of PGD adversarial training in plain torch, on a timm ResNet with our weights, in the faster of the two memory layouts."""
import json
import pathlib
import tempfile

import jax
import numpy as np

from experiments.benchmarks.timing import Case, Skip, rounded
from experiments.benchmarks.torch_attacks import pgd, twin
from experiments.benchmarks.torch_models import trial


def case(config, record, classifier, x, adversary):
    """The `Case` of a step: PGD in evaluation mode, then AdamW or SGD on the adversarial images in training mode.

    Args:
        config: the benchmark's, for config.models.optimizer and the seed.
        record: fields of the record.
        classifier: our classifier of a ResNet.
        x: {"image" (b, H, W, 3) in [0, 1], "label" (b,)}.
        adversary: our PGD, whose settings torch uses.

    Raises:
        Skip: timm has no network with the same layers, or JAX uses no CPU.
    """
    if jax.default_backend() != "cpu":
        raise Skip(f"{record['name']} torch training: JAX uses a {jax.default_backend()}, this program the CPU")
    import torch
    variables = classifier.init(jax.random.key(config.seed), x["image"].shape[1:])
    made = [_step(config, record, twin(classifier, variables), x, adversary, getattr(torch, layout)) for layout in ("contiguous_format", "channels_last")]
    best = min(made, key=trial)
    best.record["peak_mib"] = rounded(_peak(best) / 2**20)
    return best


def _step(config, record, model, x, adversary, layout):
    import torch
    model = model.requires_grad_(True).to(memory_format=layout)
    images = torch.from_numpy(x["image"].transpose(0, 3, 1, 2).copy()).contiguous(memory_format=layout)
    labels = torch.from_numpy(x["label"].astype(np.int64))
    options = config.models.optimizer
    make = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[options.name]
    optimizer = make(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    torch.manual_seed(config.seed)

    def run():
        adversarial = pgd(model.eval(), images, labels, adversary)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.train()(adversarial), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Case(record | {"backend": "torch", "layout": str(layout).partition(".")[2], "devices": 1}, run, wait=lambda out: None, images=len(labels))


def _peak(case):
    """The most bytes that torch had allocated at any time of one call."""
    from torch.profiler import profile
    with profile(profile_memory=True) as recorded:
        case.run()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]")
