"""A classifier as one file that runs without this package's code: StableHLO by `jax.export`, one program a platform, beside its weights."""
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export as jax_export

import pallas_kernels
from vmamba_jax.models.logits import as_classifier
from vmamba_jax.version import __version__

PLATFORMS = ("cpu", "tpu", "cuda")
METADATA, WEIGHTS = "metadata.json", "weights.safetensors"
DAMAGED = (zipfile.BadZipFile, KeyError, ValueError, TypeError, safetensors.SafetensorError, OSError, EOFError)


def export_model(path, model, variables, image_shape, *, batch_size=1, platforms=PLATFORMS, gradients=False, metadata=None):
    """Write [0, 1] images -> logits to a file, compiled to StableHLO with the kernels of each platform; none of them need be at hand.

    The file is a zip of metadata.json, the weights once, and `<platform>.jax_export` each, which `jax.export.deserialize` reads too.

    Args:
        path: the file; written whole or not at all, an older one is replaced.
        model, variables: as for `vmamba_jax.logits_fn`.
        image_shape: (H, W, channels). batch_size: images a call of the program takes.
        platforms: some of "cpu", "tpu", "cuda".
        gradients: keep the program differentiable in the images (once), for attacks; about three times the size.
        metadata: dict of JSON values to keep beside ours.

    Raises:
        ValueError: an unknown platform, a wrong batch size or image shape.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms={tuple(platforms)}; expected some of {', '.join(PLATFORMS)}")
    if batch_size < 1 or len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"batch_size={batch_size}, image_shape={tuple(image_shape)}; expected at least 1, and (height, width, channels)")
    classifier = as_classifier(model)
    weights = {name: np.asarray(x) for name, x in flatten_dict(variables, sep="/").items()}
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)

    @jax.jit
    def program(weights, images):
        return classifier(unflatten_dict(weights, sep="/"), images)

    files = {WEIGHTS: safetensors.numpy.save(weights)}
    for platform in platforms:
        with pallas_kernels.platforms(platform):
            exported = jax_export.export(program, platforms=[platform])(jax.eval_shape(lambda: weights), images)
            files[f"{platform}.jax_export"] = bytes(exported.serialize(vjp_order=int(gradients)))
    facts = {"batch_size": batch_size, "image_shape": list(image_shape), "platforms": list(platforms), "gradients": bool(gradients),
             "classes": exported.out_avals[0].shape[-1], "versions": {"vmamba_jax": __version__, "jax": jax.__version__},
             "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
    files[METADATA] = json.dumps(dict(metadata or {}) | facts, indent=2).encode()

    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with zipfile.ZipFile(draft, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def load_exported(path, platform=None):
    """The `ExportedModel` of a file that `export_model` wrote; every part is checked against its SHA-256 before it is used.

    Args:
        path: the file.
        platform: "cpu", "tpu" or "cuda"; None: that of JAX's default device.

    Raises:
        FileNotFoundError: no such file. ValueError: a file that is damaged, of another kind, or without that platform.
    """
    platform = platform or {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA))
            if platform not in metadata["platforms"]:
                raise LookupError(f"{path} holds programs for {', '.join(metadata['platforms'])}, not for {platform}")
            program, weights = (_checked(archive, name, metadata) for name in (f"{platform}.jax_export", WEIGHTS))
        return ExportedModel(jax_export.deserialize(bytearray(program)), jax.tree.map(jnp.asarray, safetensors.numpy.load(weights)), metadata)
    except KeyError as error:
        raise ValueError(f"{path} is damaged or no exported model: it has no {error}") from error
    except LookupError as error:
        raise ValueError(str(error)) from None
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or no exported model: {error}") from error


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """`exported(images)`: [0, 1] images (n, H, W, channels) -> logits (n, classes), any n; inside jit, n must be the exported batch size.

    Attributes:
        program: the `jax.export.Exported`, called as program.call(weights, images).
        weights: {"params/...": array}. metadata: what the file says of itself.
    """
    program: jax_export.Exported
    weights: dict
    metadata: dict

    def __call__(self, images):
        batch, shape = self.metadata["batch_size"], tuple(self.metadata["image_shape"])
        if images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(f"images have shape {images.shape}; expected (n, {', '.join(map(str, shape))}), as exported")
        images = jnp.asarray(images, jnp.float32)
        padded = jnp.pad(images, ((0, -len(images) % batch), (0, 0), (0, 0), (0, 0)))
        parts = [self.program.call(self.weights, padded[i:i + batch]) for i in range(0, len(padded), batch)]
        return jnp.concatenate(parts)[:len(images)] if parts else jnp.zeros((0, self.metadata["classes"]))


def _checked(archive, name, metadata):
    content = archive.read(name)
    if hashlib.sha256(content).hexdigest() != metadata["sha256"][name]:
        raise ValueError(f"{name} does not have the checksum it was written with")
    return content
