"""A classifier in one file that runs without this package: a StableHLO program per platform (`jax.export`) and the weights."""
import dataclasses
import hashlib
import json
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export as jax_export

import pallas_kernels
from vmamba_jax.core import checks, files
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.version import __version__

PLATFORMS = ("cpu", "tpu", "cuda")
METADATA, WEIGHTS = "metadata.json", "weights.safetensors"
DAMAGED = (zipfile.BadZipFile, KeyError, ValueError, TypeError, safetensors.SafetensorError, OSError, EOFError)


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

    Args:
        path: the file.
        platform: "cpu", "tpu" or "cuda"; None: the platform of JAX's default device.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, of another kind, or without a program for the platform.
    """
    platform = platform or {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA))
            if platform not in metadata["platforms"]:
                raise LookupError(f"platform={platform!r}: expected one of {', '.join(metadata['platforms'])}, the platforms of {path}")
            program, weights = (_checked(archive, name, metadata) for name in (f"{platform}.jax_export", WEIGHTS))
        return ExportedModel(jax_export.deserialize(bytearray(program)), jax.tree.map(jnp.asarray, safetensors.numpy.load(weights)), metadata)
    except KeyError as error:
        raise ValueError(f"{path} is damaged or not an exported model: it has no {error}") from error
    except LookupError as error:
        raise ValueError(str(error)) from None
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or not an exported model: {error}") from error


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


def _checked(archive, name, metadata):
    content = archive.read(name)
    if hashlib.sha256(content).hexdigest() != metadata["sha256"][name]:
        raise ValueError(f"the checksum of {name} does not match")
    return content
