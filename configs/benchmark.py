"""Benchmark: the scan in each backend, whole models, their growth with the image size, and the memory of their input gradient.

    python -m experiments.benchmark
    python -m experiments.benchmark --against torch --config.parts="('models',)"
    python -m experiments.benchmark --config configs/benchmark.py:machine=accelerator --workdir runs/gpu

VMamba-T's shapes and sizes (arXiv 2401.10166). Cost on two CPU cores: about half an hour, most of it compilation and the 1024-pixel images;
PyTorch's models add three minutes. Results by device: docs/benchmarks.md.
"""
from configs import base, cifar10_at
from vmamba_jax.evaluation import corruptions

STAGES = ((3136, 96), (784, 192), (196, 384), (49, 768))  # (length, channels) of VMamba-T's four stages at 224 pixels
MACHINES = {
    "cpu": {"batch": 8, "scan_batches": (8,), "dtypes": ("float32",), "copy_mib": 256, "variants": ("ours",)},
    "accelerator": {"batch": 64, "scan_batches": (32, 256), "dtypes": ("float32", "bfloat16"), "copy_mib": 2048,
                    "variants": ("ours", "associative")},
}


def get_config(arg=None):
    """Axis: `machine=cpu` or `machine=accelerator`, which sets batch sizes, dtypes and model variants."""
    arg = base.parse_arg(arg, machine="cpu")
    machine = base.choose("machine", arg["machine"], MACHINES)
    config = base.benchmark()
    config.parts = ("scan", "models", "memory", "growth")
    config.copy_mib = machine["copy_mib"]

    # backends: "xla", "reference" (lax.scan and autodiff), "associative" (lax.associative_scan and autodiff), "pallas" (the device's kernel)
    config.scan.update(operations=("selective_scan", "cross_selective_scan"), backends=("pallas", "xla", "reference", "associative"),
                       passes=("forward", "gradient"), shapes=STAGES, batches=machine["scan_batches"])
    # variants: "ours", "remat", and with another scan inside the model "reference" and "associative"
    config.models.update(names=("vmamba_tiny",), variants=machine["variants"], passes=("forward", "gradient", "training", "pgd"),
                         batches=(machine["batch"],), dtypes=machine["dtypes"],
                         attack={"name": "pgd", "eps": 4 / 255, "steps": 10, "step_size": 1 / 255},
                         optimizer={"learning_rate": 1e-3, "weight_decay": 0.05})
    config.memory.update(names=("vmamba_tiny",), variants=("ours", "remat", "reference"), batch=machine["batch"])
    config.growth.update(names=("vmamba_tiny",), passes=("forward", "gradient"), sizes=(224, 320, 448, 640, 896, 1024))
    # models: catalog names (random weights and images), or folders of trained runs with their own data
    config.attacks.update(models=("vmamba_tiny",), attacks=("pgd",), images=16, batch=machine["batch"], eps=8 / 255)
    # one step of adversarial training per number of devices: `batch` images over all of them, then on each as many as the largest number gets
    config.scaling.update(models={"vmamba_tiny": {"dims": (32, 64), "depths": (1, 1), "patch_size": 2, "num_classes": 10},
                                  "resnet18": {"stem": "cifar", "stem_width": 16, "layers": (1, 1), "channels": (16, 32), "num_classes": 10}},
                          devices=(1, 2, 4, 8), batch=64, size=32,
                          attack={"name": "pgd", "eps": 8 / 255, "steps": 2, "step_size": 4 / 255})
    # one step of PGD adversarial training: the models of configs/cifar10_at.py, and VMamba-T
    small = {label: {"name": name, "size": 32, "batch": 64, "overrides": {"num_classes": 10, **overrides}}
             for label, (name, overrides) in cifar10_at.MODELS.items() if label in ("vmamba_1m", "resnet_1m")}
    config.training.update(models={**small, "vmamba_tiny": {"name": "vmamba_tiny", "size": 224, "batch": machine["batch"], "overrides": {}}},
                           attack={"name": "pgd", "eps": 8 / 255, "steps": 10, "step_size": 2 / 255})
    # every corruption of ImageNet-C; the package imagecorruptions processes `package_images` at a time, on the CPU
    config.corruptions.update(names=(*corruptions.CORRUPTIONS, *corruptions.EXTRA), severity=3, batch=64, package_images=4)
    # trace and lowering of the input gradient for each platform, and the first training step of two programs; in fresh processes on the CPU
    config.compile.update(models=("vmamba_tiny", "vim_tiny"), backends=("ours", "xla"), platforms=("cpu", "tpu", "cuda"),
                          first_steps=("configs/digits.py:objective=pgd_at", "vmamba_tiny"), batch=8)
    # sequence layers at the width and states of arXiv 2406.05532; torch has them all but mega and transformer
    config.sequences.update(layers=("s4", "dss", "s5", "s6"), lengths=(1024, 4096), passes=("forward", "gradient"), batch=2)
    config.against.update(models=("swin_tiny_patch4_window7_224", "convnext_tiny", "deit_small_patch16_224"), passes=("forward", "gradient"))
    return config
