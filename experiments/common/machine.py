"""What a measurement depends on besides its config: the device, the versions, the load of the machine."""
import datetime
import importlib.metadata
import os
import pathlib
import platform

from experiments.common import environment
from vmamba_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin")


def device(devices):
    """{"platform", "kind", "count", "cores"} of the devices measured: kind is the processor's name where JAX says only "cpu"."""
    first = devices[0]
    kind = processor() if first.platform == "cpu" else first.device_kind
    return {"platform": first.platform, "kind": kind, "count": len(devices), "cores": environment.cores()}


def processor():
    """The processor's name, or its architecture where the system does not say."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.processor() or platform.machine()


def versions(packages=PACKAGES):
    """Versions of Python, of this package, and of `packages`, as far as they are installed."""
    return {"python": platform.python_version(), "vmamba_jax": __version__, **installed(packages)}


def installed(packages):
    """Versions of those packages that are there."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load():
    """Processes that wanted to run, on average over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
