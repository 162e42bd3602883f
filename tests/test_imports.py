"""What importing a package loads, and how long the top level takes."""
import json
import subprocess
import sys

import pytest

LOADED = "import json, sys, vmamba_jax.{room}; print(json.dumps(sorted(sys.modules)))"
SECONDS = "import jax, time; since = time.perf_counter(); import vmamba_jax; print(time.perf_counter() - since)"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("room", ["attacks", "data", "reports"])
def test_package_loads_no_model_and_no_kernel(room):
    loaded = json.loads(python(LOADED.format(room=room)))
    heavy = [name for name in loaded if name == "flax" or name.startswith(("flax.", "pallas_kernels", "vmamba_jax.models"))]
    assert not heavy


def test_reports_load_without_jax():
    loaded = json.loads(python(LOADED.format(room="reports")))
    assert "jax" not in loaded


def test_top_level_import_takes_under_three_tenths_of_a_second():
    """Fastest of three: the machine may be busy, which adds time and never takes any away."""
    assert min(float(python(SECONDS)) for _ in range(3)) < 0.3
