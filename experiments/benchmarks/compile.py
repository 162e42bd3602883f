"""Trace and lowering time of an input gradient, and time to the first training step, in fresh processes on CPU without warm caches."""
import json
import os
import re
import subprocess
import sys
import time

import numpy as np

from experiments.benchmarks.timing import rounded
from experiments.common.cli import ConfigError

SCANS = {"ours": None, "xla": "xla"}
PLATFORMS = ("cpu", "tpu", "cuda")
DIGITS = "configs/digits.py:objective=pgd_at"
KERNEL = re.compile(r"custom_call @(tpu_custom_call|mosaic_gpu)")


def measurements(config):
    """The measurements of a config, as keyword arguments of `_measure`."""
    section = config.compile
    for field, known in (("backends", SCANS), ("platforms", PLATFORMS)):
        if unknown := [name for name in section[field] if name not in known]:
            raise ConfigError(f"config.compile.{field}={unknown[0]!r}: expected some of {', '.join(known)}")
    found = [{"kind": "lower", "name": name, "backend": backend, "size": section.size, "platforms": list(section.platforms)}
             for name in section.models for backend in section.backends]
    return found + [{"kind": "first_step", "name": name, "batch": section.batch, "size": section.size} for name in section.first_steps]


def records(config, tick=lambda: None):
    """Records of the benchmark's part "compile": medians over `config.compile.repeats` processes.

    Args:
        config: of configs/benchmark.py.
        tick: called after each process.

    Returns:
        list of records: "compile" rows with CPU seconds, "first_step" rows with CPU seconds, and wall seconds in all.

    Raises:
        ConfigError: an unknown backend or platform.
        RuntimeError: a process failed.
    """
    found = []
    for measurement in measurements(config):
        runs = []
        for _ in range(config.compile.repeats):
            runs.append(_in_process(measurement))
            tick()
        found += [_median(rows) for rows in zip(*runs, strict=True)]
    return found


def _median(rows):
    times = [name for name in rows[0] if name.endswith("_s")]
    return rows[0] | {name: rounded(float(np.median([row[name] for row in rows]))) for name in times} | {"repeats": len(rows)}


def _in_process(measurement):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"} | {"JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-m", __name__, json.dumps(measurement)], env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{measurement['name']} {measurement['kind']}: {(ran.stderr.strip().splitlines() or ['failed'])[-1]}")
    return json.loads(ran.stdout.splitlines()[-1])


class _Clock:
    """CPU and wall seconds since the last call of `lap`."""

    def __init__(self):
        self.last = time.process_time(), time.perf_counter()

    def lap(self):
        now = time.process_time(), time.perf_counter()
        cpu, wall = now[0] - self.last[0], now[1] - self.last[1]
        self.last = now
        return cpu, wall


def _lower(name, backend, size, platforms):
    """Trace and lower the input gradient for each platform."""
    import jax
    import jax.numpy as jnp

    import pallas_kernels
    import vmamba_jax
    model = vmamba_jax.create_model(name, scan_implementation=SCANS[backend])
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    rows = []
    for platform in platforms:
        jax.clear_caches()
        gradient = jax.jit(jax.grad(lambda images, variables: model.apply(variables, images).sum()))
        clock = _Clock()
        with pallas_kernels.platforms(platform):
            traced = gradient.trace(images, variables)
        trace, _ = clock.lap()
        lowered = traced.lower(lowering_platforms=(platform,))
        lower, _ = clock.lap()
        text = lowered.as_text()
        rows.append({"what": "compile", "name": name, "backend": backend, "pass": "gradient", "size": size, "platform": platform,
                     "trace_cpu_s": trace, "lower_cpu_s": lower, "kernels": len(KERNEL.findall(text)), "text_mb": rounded(len(text) / 1e6)})
    return rows


def _first_step(name, batch, size):
    """Build, trace, compile and run one training step."""
    import jax

    from configs import benchmark, digits
    from experiments.common import build
    from vmamba_jax import models, parallel, training
    clock = _Clock()
    if name == DIGITS:
        config = digits.get_config("objective=pgd_at")
        run = build.build(config)
        classifier, optimizer, step, batch, shape = run.classifier, run.optimizer, run.step, config.batch_size, run.train.image_shape
    else:
        classifier, shape = models.Classifier(models.create_model(name)), (size, size, 3)
        optimizer = training.optimizer.create(**benchmark.get_config().models.optimizer.to_dict())
        step = training.objectives.standard(classifier, optimizer)
    mesh = parallel.data_mesh(jax.devices()[:1])
    state = parallel.replicate(training.create_state(classifier, optimizer, jax.random.key(0), shape), mesh)
    x = {"image": np.zeros((batch, *shape), np.float32), "label": np.zeros(batch, np.int32)}
    args = state, parallel.shard_batch(x, mesh), parallel.replicate(jax.random.key(0), mesh)
    row = {"what": "first_step", "name": name, "backend": "ours", "batch": batch, "size": shape[0]}
    step = parallel.map_step(step, mesh)
    laps = {"build": clock.lap()}
    traced = step.trace(*args)
    laps["trace"] = clock.lap()
    lowered = traced.lower()
    laps["lower"] = clock.lap()
    compiled = lowered.compile()
    laps["compile"] = clock.lap()
    jax.block_until_ready(compiled(*args))
    laps["step"] = clock.lap()
    row |= {f"{phase}_cpu_s": cpu for phase, (cpu, _) in laps.items()}
    row |= {"total_cpu_s": sum(cpu for cpu, _ in laps.values()), "total_s": sum(wall for _, wall in laps.values())}
    return [row]


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print(json.dumps({"lower": _lower, "first_step": _first_step}[options.pop("kind")](**options)))
