"""The estimate against measured steps: the same counts and the same roofline, with this machine's CPU as a measured chip."""
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import base, imagenet
from experiments.common import build, environment
from experiments.planning import chips, counts, estimate, hlo, programs
from vmamba_jax import parallel, training

FACTOR = 1.5     # the estimate's largest ratio to the measured step, either way
SIZE, BATCH = 64, 16
MODELS = {  # small forms of three families: convolutions, products of matrices, scans
    "resnet18": {"layers": (1, 1, 1, 1)},
    "vit_tiny": {"depth": 4},
    "vmamba_tiny": {"dims": (32, 64, 128, 256), "depths": (1, 1, 2, 1)},
}
LEVELS = (2 ** 18, 2 ** 21, 2 ** 24, 2 ** 28)  # bytes moved by a call, whose bandwidths are measured: caches, then memory
CALLS = 7


def check(models=None, steps=9, report=print):
    """{"chip": measured figures, "records": [{"model", "measured", "estimated", "ratio", ...}], "within": whether all ratios are}.

    The chip is measured before and after each model, so that other load on the machine affects both.

    Args:
        models: {name: fields}; None: `MODELS`.
        steps: timed per model.
        report: called with a line before each model.
    """
    records, figures = [], []
    mesh = parallel.data_mesh(jax.devices("cpu")[:1])
    for name, fields in (MODELS if models is None else models).items():
        report(f"measuring {name}")
        before = measured_chip()
        run = build.build(_config(name, fields), mesh, programs.source(images=1000))
        program = programs.compile_step(run, "cpu")
        seconds = _seconds(run, program, steps)
        chip = chips.mean([before, measured_chip()])
        module = hlo.parse(program.text)
        works = counts.count(module)
        cost = estimate.estimate(works, [], chips.Slice("this machine", "cpu", chip, (1,)))
        ratio = cost.step / statistics.median(seconds)
        figures.append(chip)
        records.append({"model": name, "fields": {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}, "batch": BATCH,
                        "size": SIZE, "measured": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds), "estimated": cost.step,
                        "ratio": ratio, "within": 1 / FACTOR <= ratio <= FACTOR, "compute": cost.compute, "memory": cost.memory,
                        "flops_per_image": sum(work.times * work.matmul for work in works) / BATCH})
        report(f"{name}: measured {1e3 * records[-1]['measured']:.0f} ms a step, estimated {1e3 * cost.step:.0f} ms, ratio {ratio:.2f}")
    return {"kind": "plan_check", "factor": FACTOR, "within": all(record["within"] for record in records), "records": records,
            "chip": chips.mean(figures)._asdict(), "device": environment.device(jax.devices("cpu")), "load": environment.load(), "date": environment.now()[:10],
            "versions": environment.versions(environment.KERNEL_PACKAGES), "command": "python -m experiments.plan --check --config configs/imagenet.py"}


def text(record):
    """The check's last line."""
    ratios = ", ".join(f"{each['model']} {each['ratio']:.2f}" for each in record["records"])
    return f"estimated over measured step: {ratios}; {'all' if record['within'] else 'not all'} within a factor of {record['factor']}"


def _config(name, fields):
    """The recipe of adversarial fine-tuning of configs/imagenet.py, small."""
    config = base.complete(imagenet.get_config(f"recipe=singh,model={name},batch={BATCH},size={SIZE}"))
    overrides = {key: value for key, value in config.model.overrides.to_dict().items() if key != "drop_path_rate" or not name.startswith("resnet")}
    with config.model.unlocked():
        config.model.overrides = {**overrides, "num_classes": 10, **fields}
    return config


def _seconds(run, program, steps):
    """Seconds of each of `steps` executions of a compiled step on random images."""
    init_key, key = build.keys(run.config)
    state = training.create_state(run.classifier, run.optimizer, init_key, run.train.image_shape, ema_decay=build.ema_decay(run.config))
    state = parallel.replicate(run.step.begin(state, run.train.image_shape, run.config.batch_size), run.mesh)
    rng = np.random.default_rng(0)
    batch = parallel.shard_batch({"image": rng.random((BATCH, *run.train.image_shape), np.float32), "label": rng.integers(0, 10, BATCH).astype(np.int32)}, run.mesh)
    key = parallel.replicate(np.asarray(jax.random.key_data(key)), run.mesh)
    found = []
    for _ in range(steps + 1):
        since = time.perf_counter()
        state, metrics = program.compiled(state, batch, key)
        jax.block_until_ready(metrics)
        found.append(time.perf_counter() - since)
    return found[1:]


def measured_chip():
    """This machine's CPU as a `chips.Chip`, measured in a few seconds."""
    n, rng = 1024, np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((n, n), np.float32))
    image, kernel = jnp.asarray(rng.standard_normal((16, 32, 32, 64), np.float32)), jnp.asarray(rng.standard_normal((3, 3, 64, 64), np.float32))
    convolution = jax.jit(lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
    x = jnp.asarray(rng.random(2 ** 20, np.float32))
    products = 64
    chain = jax.jit(lambda x: functools.reduce(lambda y, _: y * x + x, range(products), x))
    slow = jax.jit(lambda x: functools.reduce(lambda y, _: jnp.exp(-y), range(16), x))
    levels = tuple((size, size / _fastest(jax.jit(lambda x: x + 1), jnp.zeros(size // 8, jnp.float32))) for size in LEVELS)
    calls = 200  # products too small to take time, each an instruction of its own
    small = jax.jit(lambda x: functools.reduce(lambda y, _: y @ x, range(calls), x))
    return chips.Chip(
        environment.processor(), "cpu", {"f32": 2 * n ** 3 / _fastest(jax.jit(jnp.matmul), a, a)}, 0, levels[-1][1], 0, vector=2 * products * x.size / _fastest(chain, x),
        slow=16 * x.size / _fastest(slow, x), convolution=2 * 9 * 64 * image.size / _fastest(convolution, image, kernel), levels=levels,
        overhead=_fastest(small, jnp.zeros((8, 8))) / calls, source="measured")


def _fastest(function, *args):
    """Seconds of the fastest of several calls."""
    jax.block_until_ready(function(*args))
    found = []
    for _ in range(CALLS):
        since = time.perf_counter()
        jax.block_until_ready(function(*args))
        found.append(time.perf_counter() - since)
    return min(found)

