"""The counts of machine code, from a few lines of a disassembly."""
from experiments import gpu_code
from pallas_kernels.gpu.plan import plan as scan_plan

LINES = [".L_x_0:", *["FFMA R1, R1, R1, R1"] * 24, "@P0 BRA `(.L_x_0)", ".L_x_1:", *["MUFU.EX2 R1, R1"] * 11, "@P0 BRA `(.L_x_1)", "EXIT"]
TEXT = "\n".join(line if line.startswith(".L") else f"        /*{16 * i:04x}*/                   {line} ;" for i, line in enumerate(LINES))


def test_loops_and_resources():
    count, found = gpu_code.loops(TEXT)
    assert count == 38 and [loop.size for loop in found] == [25, 12]
    plan = scan_plan(128, 49, 1, 384, 1)._replace(across=1, ahead=4)
    assert gpu_code.per_number("scan", found, plan) == 25 / 4 and gpu_code.per_number("sweep", found, plan) == 25 / 4 + 12 / 2
    assert gpu_code.resources("8 bytes stack frame, 4 bytes spill stores\nUsed 141 registers") == {"registers": 141, "spills": 4}


def test_bounds():
    row = {"kernel": "scan", "direction": "forward", "shape": [1], "state": 1, "spills": 0, "per_number": 41.7}
    assert gpu_code.exceeded([row]) == []
    assert "90 instructions per number, expected at most" in gpu_code.exceeded([row | {"per_number": 90}])[0]
    assert gpu_code.exceeded([row | {"kernel": "scan of a map", "per_number": 64}]) == [] != gpu_code.exceeded([row | {"per_number": 64}])
    assert "4 bytes of registers spilled" in gpu_code.exceeded([row | {"spills": 4}])[0]
