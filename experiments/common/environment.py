"""The machine: process settings before JAX starts, and the facts that a measurement records."""
import ctypes
import datetime
import importlib.metadata
import os
import pathlib
import platform
import sys

import jax

from vmamba_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")  # whose versions every result records
KERNEL_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin")  # of a benchmark

# glibc's mallopt parameters. XLA:CPU allocates its temporary buffers at every call, and glibc maps and unmaps them each time: up to a fifth of the
# time of VMamba-T's gradient at 224 pixels. Every arena but the main one maps requests above 64 MiB whatever is set. A single arena that grows by
# 64 MiB at a time saves as much again for large models, but the threads of small models then wait for one another.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
KEEP = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1))
KEEP_LARGE = (*KEEP, (TOP_PAD, 64 << 20), (ARENA_MAX, 1))
# XLA:CPU orders a program's operations for concurrency; in the order of least memory VMamba-T's gradient takes a third less memory.
LEAN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler"


def prepare(cpu_devices=None, large=False):
    """Set up memory allocation and one CPU device per core; call it before the first JAX computation.

    JAX_NUM_CPU_DEVICES in the environment, JAX's own setting, overrides `cpu_devices`; VMAMBA_JAX_PLAIN=1 in the environment disables all of it.

    Args:
        cpu_devices: number of CPU devices; None: the number of cores rounded down to 1, 2, 4 or 8, which divide the usual batch sizes.
        large: whether models are of ImageNet's size, with buffers of hundreds of MiB.
    """
    if os.getenv("VMAMBA_JAX_PLAIN", "0") not in ("", "0"):
        return
    keep_memory(large)
    if large and LEAN_ORDER not in os.getenv("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.getenv('XLA_FLAGS', '')} {LEAN_ORDER}=false".strip()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", cpu_devices or max(n for n in (1, 2, 4, 8) if n <= cores()))


def keep_memory(large=False):
    """Set glibc to keep freed memory; returns whether it did, which only glibc on Linux can."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return min(libc.mallopt(name, value) for name, value in (KEEP_LARGE if large else KEEP)) == 1


def cores():
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device(devices):
    """{"platform", "kind", "count", "cores"} of JAX devices; kind is the processor's name for CPU devices."""
    first = devices[0]
    kind = processor() if first.platform == "cpu" else first.device_kind
    return {"platform": first.platform, "kind": kind, "count": len(devices), "cores": cores()}


def processor():
    """The processor's name; its architecture on systems without /proc/cpuinfo."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.processor() or platform.machine()


def versions(packages=PACKAGES):
    """{name: version} of Python, this package, and those of `packages` that are installed."""
    return {"python": platform.python_version(), "vmamba_jax": __version__, **installed(packages)}


def installed(packages):
    """{name: version} of those of `packages` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load():
    """Runnable processes, averaged over the last minute; None on systems that do not report it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def now():
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
