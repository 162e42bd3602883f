"""TPU kernels through the whole compiler, ahead of time, which finds errors of vector memory and layouts. Needs libtpu, no TPU.

`make test-aot` runs these; `make test` does not, because the wheel is 200 MB.
"""
import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
import jax.numpy as jnp
from experiments import tpu_cycles as program
shapes = [*program.scan_cases(1, 3136, 96), *program.scan_cases(1, 49, 768), *program.scan_cases(1, 65536, 128, batch=1),
          *program.scan_cases(16, 197, 384), *program.scan_cases(3, 1, 3), *program.cross_cases(56, 96, 6), *program.cross_cases(7, 768, 48,
          jnp.bfloat16), *program.cross_cases(13, 192, 12), *program.linear_cases(100, 130)]
program.prepare(sys.argv[2])
target = program.device(sys.argv[1])
for case in shapes:
    program.compile_case(case, target)
    print("compiled", case.kernel, case.direction, case.shape)
chosen = [*program.linear_cases(), *program.scan_cases(1), *program.cross_cases(7, 768, 48, jnp.bfloat16)]
for record in program.run(sys.argv[1], sys.argv[2], chosen=chosen, report=lambda line: None)["records"]:
    print("cycles", record["kernel"].replace(" ", "_"), record["direction"], record["cycles_per_register"])
"""
CEILINGS = {("linear_scan", "forward"): 14, ("selective_scan_N=1", "forward"): 33, ("selective_scan_N=1", "backward"): 66,
            ("cross_selective_scan_R=48_bfloat16", "forward"): 160, ("cross_selective_scan_R=48_bfloat16", "backward"): 350}


@pytest.mark.aot
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
def test_cycles(topology, tmp_path):
    ran = subprocess.run([sys.executable, "-c", SCRIPT, topology, str(tmp_path)], capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": ""})
    assert ran.returncode == 0, ran.stderr[-3000:]
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert len([line for line in lines if line[:1] == ["compiled"]]) == 17
    cycles = {(kernel, direction): float(count) for word, kernel, direction, count in (line for line in lines if line[:1] == ["cycles"])}
    assert cycles.keys() == CEILINGS.keys()
    for kernel, ceiling in CEILINGS.items():
        assert 5 < cycles[kernel] < ceiling, kernel        # 1.2 times the measured count; a broken schedule takes several times as many
