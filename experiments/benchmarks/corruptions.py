"""ImageNet-C's corruptions: ours on all devices against the package imagecorruptions on the same images."""
import functools
import importlib.util
import warnings

import jax
import numpy as np

from experiments.benchmarks.compiled import batch_case, mesh_for
from experiments.benchmarks.timing import Case, Skip, rounded
from experiments.common.cli import ConfigError
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import per_image_keys
from vmamba_jax.evaluation import corruptions

OURS, PACKAGE = "ours", "imagecorruptions"


def groups(config, devices):
    """Groups of functions that each make a `Case`: one corruption by us and by the package, timed in turn."""
    section = config.corruptions
    if unknown := [name for name in section.names if name not in corruptions.FUNCTIONS]:
        raise ConfigError(f"config.corruptions.names={unknown[0]!r}: expected some of {', '.join(corruptions.FUNCTIONS)}")
    if section.severity not in corruptions.SEVERITIES:
        raise ConfigError(f"config.corruptions.severity={section.severity!r}: expected 1 to 5")
    for name in section.names:
        yield [functools.partial(_ours, name, section, config.seed, devices), functools.partial(_package, name, section, config.seed)]


def compared(records):
    """The records, with "ratio" in ours: our images per second over the package's."""
    theirs = {(r["name"], r["size"]): r["images_per_s"] for r in records if r["what"] == "corruption" and r["backend"] == PACKAGE}
    return [r | {"ratio": rounded(r["images_per_s"] / theirs[r["name"], r["size"]])}
            if r["what"] == "corruption" and r["backend"] == OURS and (r["name"], r["size"]) in theirs else r for r in records]


def _record(name, section, backend, images):
    return {"what": "corruption", "name": name, "backend": backend, "pass": "forward", "severity": section.severity, "size": section.size,
            "batch": images, "devices": 1}


def _images(section, count, seed):
    """Random images with detail at several scales, uint8."""
    rng, side = np.random.default_rng(seed), section.size
    x = sum(rng.random((count, -(-side // cell), -(-side // cell), 3)).repeat(cell, 1).repeat(cell, 2)[:, :side, :side] for cell in (1, 4, 16, 64))
    return np.uint8(255 * x / 4)


def _ours(name, section, seed, devices):
    """A batch over as many of the devices as divide it, corrupted as in `evaluation.corruption_accuracy`."""
    batch = {"image": unit_interval(_images(section, section.batch, seed)),
             "key": np.asarray(jax.random.key_data(per_image_keys(jax.random.key(seed), section.batch)))}
    try:
        return batch_case(lambda tree, batch, key: corruptions.corrupt(name, section.severity, batch["image"], batch["key"]), {}, batch,
                          _record(name, section, OURS, section.batch), mesh_for(section.batch, devices), images=section.batch)
    except ImportError as error:
        raise Skip(f"{name}: {error}") from error


def _package(name, section, seed):
    if importlib.util.find_spec(PACKAGE) is None:
        raise Skip(f"{name}: {PACKAGE} is not installed (extra [corruptions])")
    import imagecorruptions
    images = _images(section, section.package_images, seed)

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [imagecorruptions.corrupt(image, corruption_name=name, severity=section.severity) for image in images]
    run()
    return Case(_record(name, section, PACKAGE, len(images)), run, wait=lambda out: out, queued=False, images=len(images))
