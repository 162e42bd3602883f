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
    assert gpu_code.resources("8 bytes stack frame, 4 bytes spill stores\nUsed 141 registers") == {"registers": 141, "spills": 4, "shared": 0}
    assert gpu_code.resources("", "Resources(smem_scratch_bytes=38912, x=0)")["shared"] == 38912


def test_bounds():
    row = {"kernel": "scan", "direction": "forward", "shape": [1], "state": 1, "spills": 0, "registers": 168, "shared": 0, "per_number": 41.7}
    assert gpu_code.exceeded([row]) == []
    assert "90 instructions per number, expected at most" in gpu_code.exceeded([row | {"per_number": 90}])[0]
    assert gpu_code.exceeded([row | {"kernel": "scan of a map", "per_number": 64}]) == [] != gpu_code.exceeded([row | {"per_number": 64}])
    assert "2 programs on a multiprocessor" in gpu_code.exceeded([row | {"registers": 169}])[0]
    assert gpu_code.exceeded([row | {"shared": 75 * 1024}]) == [] and "(168 registers, 77000 bytes" in gpu_code.exceeded([row | {"shared": 77000}])[0]
    assert "4 bytes of registers spilled" in gpu_code.exceeded([row | {"spills": 4}])[0]


def test_instructions_of_several_states():
    """A block of 100 instructions beside its loops, of which one direction runs: of the three, the first for half of the quads."""
    from pallas_kernels.gpu.state_tiles import QUADS
    plan = scan_plan(8, 2048, 1, 1536, 16)
    starts = [(10, 20), (30, 60), (80, 40), (130, 21), (160, 61), (230, 41)]
    loops = sorted([gpu_code.Loop(0, 342), *[gpu_code.Loop(first, first + size - 1) for first, size in starts]])
    assert gpu_code.per_number_of_states(loops, plan) == 100 / QUADS + 20 / 2 + 60 + 40
    assert gpu_code.per_number_of_states(loops[:2] + loops[4:5], plan) == (343 - 20 - 21) / QUADS + 20
