"""Shared set-up: eight CPU devices, a persistent compilation cache, and the fixtures every room uses."""
import gc
import importlib.metadata
import os
import pathlib

# Compiling is nearly all these tests do: without optimisation, and (where XLA still has the choice) with the older emitters, it is 3-6 times faster.
# One LLVM module a program: splitting it for many threads costs a quarter more, and the workers already use the cores.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", FAST_COMPILE)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".cache" / "jax"))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_traceback_in_locations_limit", 0)  # compiled programs without source locations are lowered faster

settings.register_profile("repeatable", derandomize=True)  # the same examples in every run
settings.load_profile("repeatable")

# A cached program keeps thousands of small objects alive, which the collector would go through again and again.
gc.freeze()
gc.set_threshold(100_000, 50, 50)


@pytest.fixture(autouse=True, scope="module")
def permanent():
    """Exempt what earlier files left alive, compiled programs above all, from every further garbage collection: a full one takes seconds else."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow all but n, evenly spread, of the fast cases of a test with the mark `often(n)`."""
    cases = {}
    for item in items:
        if (mark := item.get_closest_marker("often")) and not item.get_closest_marker("slow"):
            cases.setdefault((item.path, item.originalname), (mark.args[0], []))[1].append(item)
    for count, same in cases.values():
        kept = {i * len(same) // count for i in range(count)}
        for i, item in enumerate(same):
            if i not in kept:
                item.add_marker(pytest.mark.slow)


GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture
def x64():
    """Turn float64 on for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def golden():
    """`golden("name")` loads tests/golden/name.npz as a dict of arrays."""
    def load(name):
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}
    return load
