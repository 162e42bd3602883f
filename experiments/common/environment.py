"""What every program sets before JAX starts: memory that is not given back between calls, and one CPU device a core."""
import ctypes
import os
import sys

import jax

# glibc's mallopt parameters. XLA:CPU asks for its temporary buffers afresh at every call, and glibc maps them and gives them back each time:
# up to a fifth of the time of VMamba-T's gradient at 224. All but the main arena map requests above 64 MiB whatever is set: a single one, grown by
# 64 MiB at a time, saves large models as much again, but makes the threads of small ones wait for one another.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
KEEP = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1))
KEEP_LARGE = (*KEEP, (TOP_PAD, 64 << 20), (ARENA_MAX, 1))
# XLA:CPU orders a program's operations for running many at once; in the order that needs least memory VMamba-T's gradient takes a third less.
LEAN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler"


def prepare(cpu_devices=None, large=False):
    """Tune memory and make `cpu_devices` CPU devices, so that a mesh puts the cores to work: by default as many as there are cores, rounded
    down to 1, 2, 4 or 8, which divide the usual batch sizes. `large`: for models of ImageNet's size, whose buffers are hundreds of MiB.

    Must run before the first JAX computation. JAX_NUM_CPU_DEVICES in the environment, JAX's own name for their number, comes before
    `cpu_devices`; VMAMBA_JAX_PLAIN=1 in the environment leaves everything as it was.
    """
    if os.environ.get("VMAMBA_JAX_PLAIN", "0") not in ("", "0"):
        return
    keep_memory(large)
    if large and LEAN_ORDER not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {LEAN_ORDER}=false".strip()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", cpu_devices or max(n for n in (1, 2, 4, 8) if n <= cores()))


def keep_memory(large=False):
    """Have glibc keep freed memory. Returns whether it could: only glibc, on Linux, has these settings."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all([libc.mallopt(name, value) == 1 for name, value in (KEEP_LARGE if large else KEEP)])


def cores():
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
