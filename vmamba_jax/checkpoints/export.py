"""A classifier in one file that runs without this package: a StableHLO program per platform (`jax.export`) and the weights."""
import dataclasses
import hashlib
import json
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export as jax_export

import pallas_kernels
from vmamba_jax.checkpoints.torch_files.read import MOST_HEADER
from vmamba_jax.core import checks, files, limits, zip_files
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.version import __version__

PLATFORMS = ("cpu", "tpu", "cuda")
METADATA, WEIGHTS = "metadata.json", "weights.safetensors"


def export_model(path, model, variables, image_shape, *, batch_size=1, platforms=PLATFORMS, gradients=False, metadata=None):
    """Write the function [0, 1] images -> logits to one file, as StableHLO with the kernels of each platform; no such device is needed.

    The file is a zip archive of metadata.json, the weights once, and `<platform>.jax_export` for each platform, which
    `jax.export.deserialize` reads too.

    Args:
        path: the file; written atomically, an older one is replaced.
        model, variables: as for `vmamba_jax.logits_fn`.
        image_shape: (H, W, channels).
        batch_size: images per call of the program, at least 1.
        platforms: some of "cpu", "tpu", "cuda".
        gradients: keep the program differentiable in the images (once), for attacks; about three times the size.
        metadata: dict of JSON values to store beside this function's own.

    Raises:
        ValueError: an unknown platform, a wrong batch size or image shape.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms={tuple(platforms)}: expected some of {', '.join(PLATFORMS)}")
    checks.count("batch_size", batch_size)
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape={tuple(image_shape)}: expected (height, width, channels), each at least 1")
    classifier = as_classifier(model)
    weights = {name: np.asarray(x) for name, x in flatten_dict(variables, sep="/").items()}
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)

    @jax.jit
    def program(weights, images):
        return classifier(unflatten_dict(weights, sep="/"), images)

    members = {WEIGHTS: safetensors.numpy.save(weights)}
    for platform in platforms:
        with pallas_kernels.platforms(platform):
            exported = jax_export.export(program, platforms=[platform])(jax.eval_shape(lambda: weights), images)
            members[f"{platform}.jax_export"] = bytes(exported.serialize(vjp_order=int(gradients)))
    facts = {"batch_size": batch_size, "image_shape": list(image_shape), "platforms": list(platforms), "gradients": bool(gradients),
             "classes": exported.out_avals[0].shape[-1], "versions": {"vmamba_jax": __version__, "jax": jax.__version__},
             "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}}
    members[METADATA] = json.dumps(dict(metadata or {}) | facts, indent=2).encode()
    with files.atomic(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def load_exported(path, platform=None):
    """The `ExportedModel` in a file of `export_model`; every part is checked against its SHA-256 before it is used.

    Loading runs nothing of the file, within 50 MB of memory and eight times its size. Calling the model runs its program: the checksums are in
    the same file, so they detect damage, not a program of foreign origin.

    Args:
        path: the file.
        platform: "cpu", "tpu" or "cuda"; None: the platform of JAX's default device.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, of another kind, or without a program for the platform; the message begins with the path.
    """
    platform = platform or {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as file:
        try:
            metadata, program, weights = _parts(file, platform)
            return ExportedModel(jax_export.deserialize(bytearray(program)), jax.tree.map(jnp.asarray, safetensors.numpy.load(weights)), metadata)
        except PlatformError as error:
            raise ValueError(f"{path}: {error}") from None
        except Exception as error:  # a damaged file can raise nearly anything
            reason = f"it has no {error}" if type(error) is KeyError else str(error)[:500] or type(error).__name__
            raise ValueError(f"{path}: expected a whole exported model, but {reason}") from error


class PlatformError(ValueError):
    """The file has no program for the platform."""


def _parts(file, platform):
    """(metadata, program, weights) of an exported model, checked: the metadata's entries by type, the others by their checksums."""
    archive, size = zip_files.open_zip(file), os.fstat(file.fileno()).st_size
    contents = {}

    def read(name):
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed; export_model stores its files as they are")
        return zip_files.read_member(archive, info, size)

    metadata = limits.parse_json(read(METADATA), METADATA)
    if not isinstance(metadata, dict):
        raise ValueError(f"{METADATA} is a {type(metadata).__name__}; expected a dict")
    platforms, shape, sums = (metadata.get(name) for name in ("platforms", "image_shape", "sha256"))
    if not isinstance(platforms, list) or not all(isinstance(name, str) for name in platforms):
        raise ValueError(f"{METADATA} has platforms={str(platforms)[:100]}; expected a list of names")
    if platform not in platforms:
        raise PlatformError(f"platform={platform!r}: expected one of {', '.join(platforms)[:500]}, the platforms of this file")
    for name in (f"{platform}.jax_export", WEIGHTS):
        contents[name] = read(name)
        if not isinstance(sums, dict) or hashlib.sha256(contents[name]).hexdigest() != sums.get(name):
            raise ValueError(f"the checksum of {name} does not match")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in (*shape, metadata["batch_size"], metadata["classes"])):
        raise ValueError(f"{METADATA} has image_shape={str(shape)[:100]}, batch_size={str(metadata['batch_size'])[:100]}, "
                         f"classes={str(metadata['classes'])[:100]}; expected (height, width, channels) and integers of at least 1")
    if int.from_bytes(contents[WEIGHTS][:8], "little") > MOST_HEADER:
        raise ValueError(f"the header of {WEIGHTS} is too long; expected at most {MOST_HEADER} bytes")
    return metadata, contents[f"{platform}.jax_export"], contents[WEIGHTS]


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """`exported(images)`: [0, 1] images (n, H, W, channels) -> logits (n, classes) for any n; inside jit, n must be the exported batch size.

    Attributes:
        program: the `jax.export.Exported`, called as program.call(weights, images).
        weights: {"params/...": array}.
        metadata: the file's metadata.json.
    """
    program: jax_export.Exported
    weights: dict
    metadata: dict

    def __call__(self, images):
        batch, shape = self.metadata["batch_size"], tuple(self.metadata["image_shape"])
        if images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(f"images of shape {images.shape}: expected (n, {', '.join(map(str, shape))}), as exported")
        images = jnp.asarray(images, jnp.float32)
        padded = jnp.pad(images, ((0, -len(images) % batch), (0, 0), (0, 0), (0, 0)))
        parts = [self.program.call(self.weights, padded[i:i + batch]) for i in range(0, len(padded), batch)]
        return jnp.concatenate(parts)[:len(images)] if parts else jnp.zeros((0, self.metadata["classes"]))
