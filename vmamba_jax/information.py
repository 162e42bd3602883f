"""What a report of a problem needs: versions, devices, and the backend of the scan (`python -m vmamba_jax info`)."""
import os
import platform

import jax

from pallas_kernels.backends import PLATFORMS
from vmamba_jax.core import machine
from vmamba_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "ml-collections", "libtpu", "jax-cuda12-plugin",
            "jax-cuda13-plugin", "torch", "equinox", "dm-haiku")
VARIABLES = ("JAX_", "XLA_", "TPU_", "CUDA_VISIBLE_DEVICES", "VMAMBA_JAX_", "LIBTPU_")  # beginnings of the names of settings that change results or speed


def collect():
    """Facts about the installation as plain values.

    Returns:
        {"vmamba_jax", "python", "system", "processor", "cores", "packages": {name: version}, "environment": {name: value} of the settings of JAX and
        XLA, "platform", "devices": [{"kind", "platform", "process"}, ...], "scan": backend that `implementation=None` takes on this platform}. If
        JAX finds no device, "error" has its message in one line, and the last three are absent.
    """
    found = {"vmamba_jax": __version__, "python": platform.python_version(), "system": platform.platform(), "processor": machine.processor(),
             "cores": machine.cores(), "packages": machine.installed(PACKAGES),
             "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}}
    try:
        devices = jax.devices()
    except RuntimeError as error:
        return found | {"error": " ".join(str(error).split())}
    name = {"gpu": "cuda"}.get(devices[0].platform, devices[0].platform)
    return found | {"platform": devices[0].platform, "scan": PLATFORMS.get(name, "xla"),
                    "devices": [{"kind": each.device_kind, "platform": each.platform, "process": each.process_index} for each in devices]}


def text(found):
    """The facts of `collect` as lines of `name  value`."""
    rows = [(name, str(found[name])) for name in ("vmamba_jax", "python", "system")]
    rows.append(("processor", f"{found['processor']}, {found['cores']} cores"))
    rows += list(found["packages"].items())
    if "error" in found:
        rows.append(("devices", f"none: {found['error']}"))
    else:
        kinds = [f"{each['platform']} {each['kind']}" for each in found["devices"]]
        rows += [("devices", ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))), ("scan", found["scan"])]
    rows += [("environment", f"{name}={value}") for name, value in found["environment"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)
