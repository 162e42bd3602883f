"""`experiments.plan`: what it reads out of compiled programs, what it makes of it, and where an adversarial step communicates."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits, imagenet, scale_at
from experiments import plan
from experiments.common.cli import ConfigError
from experiments.planning import chips, counts, depth, estimate, fitting, hlo, kernels, planning, programs, running, table
from experiments.planning.fitting import Point
from experiments.planning.text import text
from tests.helpers.toy_training import SHAPE, Classifier, Net
from vmamba_jax import attacks, parallel, training
from vmamba_jax.training import trainer

ROOT = pathlib.Path(__file__).parents[2]
TEXT = """HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[8,100], q: s32[]) -> f32[100] {
  %p = f32[8,100]{1,0:T(8,128)} parameter(0)
  %q = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%p, %q, %zero), dynamic_slice_sizes={1,100}
  %flat = f32[100]{0} bitcast(%row)
  ROOT %e = f32[100]{0} exponential(%flat)
}

%body (t: (s32[], f32[8,100])) -> (s32[], f32[8,100]) {
  %t = (s32[], f32[8,100]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[8,100]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %r = f32[100]{0} fusion(%x, %i), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"1500"}
  %inside = f32[100]{0} all-reduce(%r), replica_groups={{0,1},{2,3}}, to_apply=%add, metadata={op_name="jit(step)/while/psum"}
  ROOT %both = (s32[], /*index=1*/f32[8,100]{1,0:T(8,128)}) tuple(%next, %x)
}

%condition (t: (s32[], f32[8,100])) -> pred[] {
  %t = (s32[], f32[8,100]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[8,100], w: bf16[100,64]) -> bf16[8,64] {
  %x = f32[8,100]{1,0:T(8,128)} parameter(0)
  %w = bf16[100,64]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %zero = s32[] constant(0)
  %begin = (s32[], f32[8,100]) tuple(%zero, %x)
  %loop = (s32[], f32[8,100]) while(%begin), condition=%condition, body=%body
  %y = f32[8,100]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  %h = bf16[8,100]{1,0} convert(%y)
  %z = bf16[8,64]{1,0} dot(%h, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %k = (bf16[8,64]{1,0}, f32[8]{0}) custom-call(%z), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/cross_scan_forward"}
  %kz = bf16[8,64]{1,0} get-tuple-element(%k), index=0
  %g = bf16[8,64]{1,0} all-reduce-start(%kz), replica_groups=[1,4]<=[4], to_apply=%add, metadata={op_name="jit(step)/pmean"}
  ROOT %done = bf16[8,64]{1,0} all-reduce-done(%g)
}
"""


def test_reads_computations_loops_and_collectives():
    module = hlo.parse(TEXT)
    assert module.entry == "main" and set(module.computations) == {"add", "fused", "body", "condition", "main"}
    assert running.loops(module) == [("loop", 5)]
    inside, outside = running.collectives(module)
    assert inside == running.Collective("all-reduce", 400, ("f32",), "loop", 5, 2, "jit(step)/while/psum")
    assert outside == running.Collective("all-reduce", 1024, ("bf16",), "", 1, 4, "jit(step)/pmean")
    split = TEXT.replace("to_apply=%add, metadata", "channel_id=1, to_apply=%add, metadata")
    split = split.replace("  ROOT %done =", '  %again = bf16[8,64]{1,0} all-reduce-start(%kz), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add\n  ROOT %done =')
    assert [each.loop for each in running.collectives(hlo.parse(split))] == ["loop", ""]  # one channel in one place is one collective
    known = TEXT.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert running.loops(hlo.parse(known)) == [("loop", 7)]
    for old, new, expected in (("direction=LT", "direction=LE", 6), ("direction=LT", "direction=NE", None), ("tuple(%zero, %x)", "tuple(%w, %x)", None),
                               ("add(%i, %one)", "multiply(%i, %one)", None)):
        assert running.loops(hlo.parse(TEXT.replace(old, new))) == [("loop", expected)]
    with pytest.raises(ValueError, match="expected a computation that begins with ENTRY"):
        hlo.parse("HloModule empty\n")


def test_shapes_in_memory():
    tiled, fast, plain = hlo.shapes("(f32[8,100]{1,0:T(8,128)}, /*index=1*/bf16[100,64]{1,0:T(8,128)(2,1)S(1)}, pred[3])")
    assert (tiled.padded, tiled.bytes, tiled.payload) == (8 * 128, 4096, 3200)
    assert fast.fast and fast.bytes == 0 and fast.payload == 12800
    assert plain.bytes == 3


def test_counts_products_slices_and_traffic():
    works = {work.name: work for work in counts.count(hlo.parse(TEXT))}
    assert works["z"].matmul == 2 * 8 * 64 * 100 and works["z"].dtype == "bf16"
    assert works["z"].bytes == 8 * 100 * 2 + 8 * 64 * 2          # w is in the vector memory
    fusion = works["r"]
    assert (fusion.times, fusion.slow, fusion.cycles) == (5, 100, 1500)
    assert fusion.bytes == 400 + 4 + 100 * 4096 / 800            # one row of eight, not all of them
    assert works["k"].target == kernels.TARGET and works["k"].shapes[0].dims == (8, 64)
    assert "inside" not in works and "g" not in works


@pytest.mark.parametrize(("stride", "padding", "dilation"), [((1, 1), "SAME", (1, 1)), ((2, 1), "VALID", (1, 1)), ((1, 1), ((2, 2), (2, 2)), (2, 2))])
def test_convolutions_count_what_exists(stride, padding, dilation):
    """Against a convolution of ones, whose sum is the number of products."""
    call = lambda x, w: jax.lax.conv_general_dilated(x, w, stride, padding, lhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x, w = jnp.ones((2, 5, 6, 3)), jnp.ones((3, 3, 3, 4))
    text = jax.jit(call).lower(x, w).compile().as_text()
    work, = (work for work in counts.count(hlo.parse(text)) if work.matmul)
    assert work.matmul == 2 * float(np.sum(call(x, w)))


def test_time_of_a_step():
    """By hand: products or bytes, whichever is longer; a ring all-reduce sends its bytes twice."""
    slice = chips.parse("v5e:4x4")
    work = counts.Work("z", "dot", "", 3, "bf16", 197e9, 1, 0, 0, 819e3, None, "", ())
    gradients = running.Collective("all-reduce", 400_000_000, ("f32",), "", 1, 16, "")
    cost = estimate.estimate([work, work._replace(times=1, matmul=0, bytes=819e6)], [gradients], slice)
    assert cost.compute == pytest.approx(3e-3) and cost.memory == pytest.approx(1.003e-3)
    assert cost.network == pytest.approx(2 * 400e6 * 15 / 16 / 100e9)  # 4 is no ring: half of 200 GB/s
    assert cost.step == pytest.approx(3e-3 + 1e-3 + cost.network) and cost.compiler is None
    assert chips.parse("v5e:16x16").network == 200e9 and chips.parse("v4:4x4x4").network == 300e9
    assert chips.parse("h100:8").network == 450e9 and chips.parse("h100:16").network == 50e9
    float32 = work._replace(dtype="f32", passes=6)
    assert estimate.instruction(float32, slice.chip)[0] == pytest.approx(6e-3)


def test_cycles_of_kernels():
    chip = chips.CHIPS["v5e"]
    stream = hlo.Shape("bf16", (8, 3136, 96), 0, False)
    work = counts.Work("k", "custom-call", "jit(step)/cross_scan_backward", 1, "bf16", 0, 1, 0, 0, 0, None, kernels.TARGET,
                       (stream, hlo.Shape("bf16", (4, 1920, 9600), 0, False)))
    assert kernels.recognized(work) == ("cross_selective_scan", "backward", (8, 3136, 96), "bfloat16")
    registers = 8 * 3136 / 8
    assert kernels.seconds("v5e", chip)(work) == pytest.approx(184.0 * registers / 1.5e9, rel=0.05)  # 96 channels take a whole register
    assert kernels.seconds("v5e", chip)(work._replace(target="")) == 0
    assert kernels.unknown([work._replace(source="other")]) == ["other"]


def search(slope, fixed, capacity, start, **options):
    calls = []

    def needs(rows):
        calls.append(rows)
        return Point(rows, fixed + slope(rows), fixed + slope(rows) <= capacity)
    points = fitting.search(needs, capacity, [needs(start)], fixed, **options)
    return fitting.largest(points), fitting.smallest_failing(points), calls


@pytest.mark.parametrize("start", [4, 64, 1000])
def test_largest_batch(start):
    """One more compile on a line; on a curve, few; each number is compiled."""
    best, _, calls = search(lambda n: 10 * n, 100, 1000, start)
    assert best.rows == 90 and len(calls) <= 3
    best, failing, calls = search(lambda n: 8 * n + n ** 1.5, 100, 1000, start, compiles=6)
    exact = max(n for n in range(2, 200, 2) if 8 * n + n ** 1.5 <= 900)
    assert best.rows == exact or (failing and best.rows <= exact < failing.rows)
    assert best.rows >= exact - max(2, exact // 8) and best.rows in calls
    assert search(lambda n: 10 * n, 2000, 1000, start)[0] is None


@pytest.mark.parametrize(("name", "expected"), [
    ("v7:2x2", r"--topology=v7:2x2: expected one of v4:2x2x1\|.*v5e:1x1.*a100\|h100\|h200:N"), ("v5e:3x3", "one of 1x1, 2x2"),
    ("h100:12", "from 1 to 8, or a multiple of 8"), ("h100", "h100:N")])
def test_unknown_topologies(name, expected):
    with pytest.raises(ConfigError, match=expected):
        chips.parse(name)


def tiny():
    return imagenet.get_config("recipe=singh,model=vit_tiny,batch=12,size=32")


def test_batches_that_the_chips_do_not_divide(tmp_path):
    slice, config = chips.parse("v5e:2x4"), tiny()
    rows, note = planning.rows_of(config, slice, 0)
    assert rows == 2 and "config.batch_size=12 does not fit 8 chips with an even number of images on each" in note and "planned for 16" in note
    with pytest.raises(ConfigError, match=r"--batch=24: expected a multiple of 16, for the 8 chips of v5e:2x4 .*, such as 16 or 32"):
        planning.rows_of(config, slice, 24)
    config.mix.update(mixup=0.0, cutmix=0.0)
    assert planning.rows_of(config, slice, 24) == (3, "")
    with pytest.raises(ConfigError, match="expected some of plain, remat"):
        plan.run(tiny(), tmp_path, topology="v5e:2x4", variants=("other",))
    with pytest.raises(ConfigError, match=r"--phase=0: expected 1 to 3, one of config\.phases"):
        plan.run(scale_at.get_config(), tmp_path, topology="v5e:2x4")
    with pytest.raises(ConfigError, match=r"--phase=1: expected 0"):
        plan.run(tiny(), tmp_path, topology="v5e:2x4", phase=1)


def test_costs_of_all_blocks_from_two_depths():
    """Every number lies on the line; what differs otherwise, and arguments that do not grow as the state does, are errors."""
    def costs(blocks):
        return {"memory": {"arguments": 100 + 40 * blocks, "total": 500 + 60 * blocks}, "matmul": 7.0 * blocks, "seconds": {"step": 1 + 0.5 * blocks},
                "collectives": [{"kind": "all-reduce", "inside_loop": False, "bytes": 8 * blocks, "source": f"psum{blocks}"}],
                "loops": [{"loop": f"while.{i}", "iterations": 5} for i in range(blocks)]}

    made = depth.extrapolate(costs(2), costs(4), (2, 4), 32, added=28 * 40)
    expected = costs(32)
    assert made["memory"] == expected["memory"] and made["matmul"] == expected["matmul"] and made["seconds"] == expected["seconds"]
    assert made["collectives"][0]["bytes"] == 256 and made["collectives"][0]["inside_loop"] is False and "loops" not in made
    with pytest.raises(RuntimeError, match="expected 1,000 more bytes of arguments at 32 blocks, the line gives 1,120"):
        depth.extrapolate(costs(2), costs(4), (2, 4), 32, added=1000)
    other = costs(4) | {"collectives": []}
    with pytest.raises(RuntimeError, match="expected programs that differ in numbers only, got collectives="):
        depth.extrapolate(costs(2), other, (2, 4), 32, added=28 * 40)


def test_row_of_a_plan():
    """It says what was compiled, and marks a batch that was not."""
    record = {"batch": 64, "memory": {"total": 2 ** 30}, "seconds": {"step": 0.1}, "images_per_second": 640.0, "hours": 2.0, "chip_hours": 32.0, "collectives": [],
              "blocks": 32, "blocks_compiled": [2, 4]}
    variant = {"asked": record, "largest": {"batch": 64, "rows": 4, "record": record}, "smallest_too_large": None, "by_line": 18.7}
    made = {"model": "vit_huge", "dtype": "bfloat16", "topology": "v5e:4x4", "batch": 64, "seconds": 9.0, "variants": {"plain": variant}}
    assert table.table([made]).splitlines()[-1] == ("| vit_huge, bfloat16; 2 and 4 of 32 blocks compiled | v5e:4x4 | 1.0 GiB, 64 | 64 (4 a chip); by a line 19 a chip | - | "
                                                    "100 | - | 640 | 2.0, 32 | none | 9 s |")
    variant["smallest_too_large"] = {"rows": 8}
    assert "64 (4 a chip) |" in table.table([made])


def test_models_whose_blocks_are_compiled_in_part(tmp_path):
    config = imagenet.get_config("recipe=singh,model=vit_huge")
    assert depth.full(config, 2) == 32
    config.model.overrides.depth = 6
    assert depth.full(config, 2) == 6
    with pytest.raises(ConfigError, match="--blocks=3: expected 1 to 2 for vit_huge, which has 6 blocks"):
        depth.full(config, 3)
    with pytest.raises(ConfigError, match="--blocks=2: expected 0 for vmamba_base, whose blocks are not all alike"):
        depth.full(imagenet.get_config("recipe=singh,model=vmamba_base"), 2)
    assert programs.changed(config, 8, True, "bfloat16", 2).model.overrides.to_dict() | {"drop_path_rate": 0} == {
        "drop_path_rate": 0, "depth": 2, "remat": True, "dtype": "bfloat16"}
    with pytest.raises(ConfigError, match="--effort=high: expected one of low, full"):
        plan.run(tiny(), tmp_path, topology="v5e:2x4", effort="high")


@pytest.fixture(scope="module")
def adversarial():
    """(number of parameters, `hlo.Module`) of the trainer's own program: PGD adversarial training on eight devices, a model without batch statistics."""
    classifier, optimizer = Classifier(Net("layer")), training.optimizer.create("adamw", learning_rate=1e-3)
    step = training.objectives.pgd_at(classifier, optimizer, attack=attacks.pgd(0.05, steps=3, step_size=0.03))
    mesh, key = parallel.data_mesh(jax.devices()[:8]), jax.random.key(0)
    state = jax.eval_shape(lambda key: training.create_state(classifier, optimizer, key, SHAPE), key)
    batch = {"image": jax.ShapeDtypeStruct((16, *SHAPE), jnp.float32), "label": jax.ShapeDtypeStruct((16,), jnp.int32)}
    compiled = trainer._program(step, mesh, jax.random.key_impl(key), "replicated").lower(state, batch, jax.eval_shape(jax.random.key_data, key)).compile()
    return programs.parameters(state), hlo.parse(compiled.as_text())


def test_adversarial_step_communicates_once_and_never_inside_the_attack(adversarial):
    n, module = adversarial
    assert 3 in [trips for _, trips in running.loops(module)]  # the attack's loop is there
    found = running.collectives(module)
    assert {each.kind for each in found} == {"all-reduce"}
    assert not [each for each in found if each.loop]
    moved = sum(each.bytes for each in found)
    assert 4 * n <= moved <= 4 * n + 4 * 32  # every gradient once, in float32; the rest are the metrics


@pytest.mark.slow
def test_extrapolated_plan_is_that_of_all_blocks(tmp_path):
    """A ViT of five blocks from programs of one and two of them: FLOPs and gradients to rounding, memory and traffic nearly."""
    config = digits.get_config("objective=pgd_at")
    config.update({"batch_size": 64, "epochs": 2})
    config.objective.attack.steps = 2
    config.model = {"name": "vit_tiny", "overrides": {"embed_dim": 16, "depth": 5, "num_heads": 1, "patch_size": 4, "image_size": 8}}
    whole, parts = (plan.run(config, tmp_path / str(blocks), topology="h100:8", compiles=0, variants=("plain",), blocks=blocks) for blocks in (0, 1))
    record, made = (each["variants"]["plain"]["asked"] for each in (whole, parts))
    assert (made["blocks"], made["blocks_compiled"]) == (5, [1, 2]) and "blocks" not in record and parts["parameters"] == whole["parameters"]
    assert made["flops_per_image"] == pytest.approx(record["flops_per_image"], rel=1e-6)
    moved = lambda found: sum(row["bytes"] for row in found["collectives"])
    assert moved(made) == pytest.approx(moved(record), rel=1e-6)
    assert made["memory"]["arguments"] == pytest.approx(record["memory"]["arguments"], rel=1e-3)
    assert made["memory"]["total"] == pytest.approx(record["memory"]["total"], rel=0.02)
    assert made["seconds"]["step"] == pytest.approx(record["seconds"]["step"], rel=0.1)


@pytest.mark.slow
def test_a_plan_for_gpus(tmp_path, capsys):
    """The whole program on a tiny model: what it prints and writes is what it counted."""
    config = digits.get_config("objective=pgd_at")
    config.update({"batch_size": 64, "epochs": 2})
    config.objective.attack.steps = 2
    config.model = {"name": "vit_tiny", "overrides": {"embed_dim": 16, "depth": 1, "num_heads": 1, "patch_size": 4, "image_size": 8}}
    made = plan.run(config, tmp_path, topology="h100:8", compiles=0, minutes=0.0)
    assert list(made["variants"]) == ["plain"] and any(note.startswith("remat was not compiled") for note in made["notes"])
    record = made["variants"]["plain"]["asked"]
    assert made["batch"] == 64 and record["rows"] == 8 and record["steps"] == 2 * (made["training_images"] // 64)
    assert record["images_per_second"] == pytest.approx(64 / record["seconds"]["step"])
    assert record["chip_hours"] == pytest.approx(8 * record["hours"]) and record["memory"]["total"] > 4 * made["parameters"]
    assert 0 < sum(row["bytes"] for row in record["collectives"]) < 4.1 * made["parameters"] and not any(row["inside_loop"] for row in record["collectives"])
    assert "whose memory and fusions are not a GPU's" in made["compiled"] and (tmp_path / "plan.json").exists()
    assert text(made).splitlines()[0] in capsys.readouterr().out


def test_committed_plans_are_those_of_the_page():
    """docs/plan.md has the table of docs/benchmarks/plans; no collective of them is inside a loop."""
    plans = table.read(ROOT / "docs" / "benchmarks" / "plans")
    assert table.table(plans) in (ROOT / "docs" / "plan.md").read_text()
    for made in plans:
        for variant in made["variants"].values():
            for record in filter(None, (variant["asked"], (variant["largest"] or {}).get("record"))):
                assert record["memory"]["total"] <= record["memory"]["chip"] and record["rows"] * made["chips"] == record["batch"]
                assert not any(row["inside_loop"] for row in record["collectives"])
