"""The GPU kernels without a GPU: lowering for CUDA, selection by platform, and results in interpret mode."""
import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels
from pallas_kernels import cross, linear_scan, selective_scan
from pallas_kernels.arguments import Arguments, Options
from pallas_kernels.gpu import linear as gpu_linear
from pallas_kernels.gpu import plan as gpu_plan
from pallas_kernels.gpu import selective as gpu
from pallas_kernels.gpu import tiles as gpu_tiles
from tests.helpers.scans import draw, draw_cross, relative, value_and_gradients

KERNEL = "mosaic_gpu"      # in the name of the custom call


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch):
    """Ignore a GPU of the machine that runs the tests."""
    monkeypatch.setattr(gpu, "_machine", lambda: None)


def hopper():
    """Context of an abstract Hopper GPU, in versions of JAX that have one; the kernels must not need it."""
    try:
        device = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    except TypeError:
        return contextlib.nullcontext()
    mesh = jax.sharding.AbstractMesh((1,), ("x",), (jax.sharding.AxisType.Explicit,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def shapes(batch=8, length=98, channels=96, groups=1, state=1, dtype=jnp.float32):
    shape = lambda *s, dtype=jnp.float32: jax.ShapeDtypeStruct(s, dtype)
    return dict(u=shape(batch, length, channels, dtype=dtype), delta=shape(batch, length, channels, dtype=dtype), A=shape(channels, state),
                B=shape(batch, length, groups, state), C=shape(batch, length, groups, state), D=shape(channels), delta_bias=shape(channels))


def draw_channels(length, batch=4, channels=6, groups=1, state=1):
    return draw(length, groups, state, channels // groups, batch)


def lowered(f, *args, platform="cuda"):
    with pallas_kernels.platforms(platform):
        return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("arguments,reverse,dtype", [
    (dict(channels=96), False, jnp.float32),
    (dict(channels=384, batch=64), True, jnp.bfloat16),
    (dict(channels=384, batch=2, length=197, state=16), False, jnp.float32),
    (dict(channels=96, groups=2, state=2, length=7), True, jnp.float16),
], ids=["96", "384-bfloat16-reverse", "16-states", "2-groups-float16-reverse"])
@pytest.mark.often(2)
def test_lowers_for_cuda(arguments, reverse, dtype):
    args = shapes(**arguments, dtype=dtype)
    run = lambda args: selective_scan(**args, reverse=reverse, implementation="pallas_gpu", out_dtype=dtype)
    gradient = lambda args: jax.grad(lambda args: run(args).astype(jnp.float32).sum())(args)
    forward, backward = lowered(run, args), lowered(gradient, args)
    assert KERNEL in forward
    assert backward.count(f"@{KERNEL}") > forward.count(f"@{KERNEL}") > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_linear_scan_lowers_for_cuda(dtype):
    x = jax.ShapeDtypeStruct((2, 50, 96), dtype)
    run = lambda a, b: linear_scan(a, b, reverse=True, implementation="pallas_gpu")
    assert KERNEL in lowered(run, x, x)
    assert KERNEL in lowered(jax.grad(lambda a, b: jnp.abs(run(a, b)).sum()), x, x)


def test_lowers_for_an_abstract_gpu():
    with hopper():
        assert KERNEL in lowered(lambda args: selective_scan(**args, implementation="pallas_gpu"), shapes())


def test_platform_selects_kernel():
    run, recur = lambda args: selective_scan(**args), lambda a: linear_scan(a, a)
    for f, x in ((run, shapes()), (recur, jax.ShapeDtypeStruct((4, 9, 32), jnp.float32))):
        assert KERNEL in lowered(f, x)
        assert KERNEL not in lowered(f, x, platform="cpu")
    wide = shapes(state=17, length=9)
    assert KERNEL not in lowered(run, wide)
    with pytest.raises(ValueError, match="A with 17 states"):
        selective_scan(**draw_channels(9, state=17), implementation="pallas_gpu")
    assert KERNEL not in lowered(run, shapes(batch=0, length=9))
    with pytest.raises(ValueError, match="no empty array"):
        selective_scan(**draw_channels(9, batch=0), implementation="pallas_gpu")


def test_transformations_lower():
    args = draw_channels(9, batch=8)
    loss = lambda u: (selective_scan(**args | dict(u=u), implementation="pallas_gpu") ** 2).sum()
    assert KERNEL in lowered(jax.grad(jax.checkpoint(loss)), args["u"])
    assert KERNEL in lowered(jax.vmap(loss), args["u"][None])
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    specs = {name: jax.P("data") if name in ("u", "delta", "B", "C") else jax.P() for name in args}
    scan = jax.shard_map(lambda args: selective_scan(**args, implementation="pallas_gpu"), mesh=mesh, in_specs=(specs,),
                         out_specs=jax.P("data"), check_vma=False)
    assert KERNEL in lowered(scan, args)


class OldGPU:
    compute_capability = "7.5"


def test_old_gpu_warns_once(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(gpu.jax, "local_devices", lambda backend: [OldGPU()])
    gpu._machine.cache_clear()
    try:
        with pytest.warns(UserWarning, match="7.5.*'xla' path") as warned:
            text = [lowered(lambda args, r=r: selective_scan(**args, reverse=r), shapes(length=5)) for r in (False, True)]
        assert len(warned) == 1 and not any(KERNEL in t for t in text)
        with pytest.raises(RuntimeError, match="compute capability 7.5"):
            selective_scan(**draw_channels(5), implementation="pallas_gpu")
    finally:
        gpu._machine.cache_clear()


@pytest.mark.parametrize("batch,length,groups,per_group,state", [
    (1, 1, 1, 1, 1), (32, 3136, 1, 96, 1), (128, 784, 1, 384, 1), (3, 49, 2, 130, 2), (1, 65536, 1, 192, 16), (9, 1021, 3, 100, 5)])
def test_plan_coverage(batch, length, groups, per_group, state):
    p = gpu_plan.plan(batch, length, groups, per_group, state)
    assert p.chunks * p.steps >= length and p.rows >= (gpu_plan.ROWS if state == 1 else 1)
    assert per_group <= p.lanes <= p.tiles * p.width and p.width <= p.lanes
    assert p.segment % p.ahead == 0 and state / p.segment <= 0.5
    states = min(p.segment, p.steps) * p.width * 4 * (gpu_plan.ROWS if state == 1 else gpu_plan.SPLIT * p.part)
    assert states <= 64 * 1024 and (state == 1) == (p.part == 0) and state <= max(1, gpu_plan.SPLIT * p.part) < 2 * max(state, gpu_plan.SPLIT)


def test_any_batch_fits_the_grid(monkeypatch):
    """Programs lie on the grid's x axis, which has 2^31 places; y and z have 65,535, four rows each."""
    grids = []

    def kernel(body, out_type, grid, **options):
        grids.append(grid)
        return lambda *inputs: out_type
    monkeypatch.setattr(gpu_tiles.plgpu, "kernel", kernel)
    p = gpu_plan.plan(300_000, 2, 2, 128, 1)
    gpu_tiles.launch(None, p, False, {}, {})
    assert p.chunks == 1 and grids == [(75_000 * 2 * p.tiles,)]


def test_sequences_beyond_32_bit_offsets_are_refused():
    inside, beyond = (Arguments(**shapes(batch=4, length=1, channels=n)) for n in (2**30, 2**31))
    assert gpu.refusal("selective_scan", inside) is None
    assert "expected fewer than 1431655765 numbers in a chunk" in str(gpu.refusal("selective_scan", beyond))
    x = jax.ShapeDtypeStruct((4, 1, 2**31), jnp.float32)
    assert "got 2147483648 (1 steps" in str(gpu.refusal("linear_scan", x, x))


def test_plan_fills_whole_waves():
    """At VMamba-T's stages, batch 128, the programs fill at least 95 % of the multiprocessors' places in the waves that they take."""
    for length, channels in ((3136, 96), (784, 192), (196, 384), (49, 768)):
        p = gpu_plan.plan(128, length, 1, channels, 1)
        programs = -(-p.rows // gpu_plan.ROWS) * p.tiles
        assert programs <= gpu_plan.CORES * gpu_plan.RESIDENT and programs / (-(-programs // gpu_plan.CORES) * gpu_plan.CORES) > 0.95
        assert p.chunks == 1 or length % p.chunks == 0


def test_plan_of_maps():
    """One launch where the directions' programs fill the chip; small batches, several states and offsets beyond 32 bits take four scans."""
    tiny = {(56, 96): (1, 1), (28, 192): (2, 1), (14, 384): (2, 1), (7, 768): (2, 4)}
    for (side, channels), wanted in tiny.items():
        p = gpu_plan.map_plan(128, side, side, channels, 1)
        assert (p.across, p.turns) == wanted and p.segment % p.ahead == 0 and p.tiles * p.width == channels
    assert gpu_plan.map_plan(32, 56, 56, 96, 1) is None and gpu_plan.map_plan(32, 28, 28, 192, 1).across == 1
    assert gpu_plan.map_plan(128, 56, 56, 96, 2) is None and gpu_plan.map_plan(3, 56, 56, 9600, 1) is None
    assert gpu_plan.map_plan(512, 1024, 1024, 320, 1) is not None and gpu_plan.map_plan(512, 1024, 1024, 384, 1) is None


@pytest.mark.parametrize("height,width", [(1, 5), (5, 1), (7, 13)])
def test_positions_of_the_directions(height, width):
    """Each direction visits the map as `cross` orders its sequence."""
    p = gpu_plan.map_plan(128, 28, 28, 192, 1)._replace(map=(height, width), steps=height * width)
    raster = jnp.arange(height * width).reshape(1, height, width)
    for k in range(4):
        sequence = cross._sequence(raster, k)[0]
        np.testing.assert_array_equal(gpu_tiles.clock(None, p, k)(jnp.arange(height * width)), sequence[::-1] if k > 1 else sequence)
    exact = [i // height for i in range(0, 2**22, 1013)]
    np.testing.assert_array_equal(gpu_tiles.quotient(jnp.arange(0, 2**22, 1013), height, 2**22), exact)


def test_one_launch_for_the_four_directions():
    """Of each pass, without a transpose of anything as large as the map."""
    shape = lambda *s, dtype=jnp.float32: jax.ShapeDtypeStruct(s, dtype)
    stream = shape(128, 7, 7, 768, dtype=jnp.bfloat16)
    args = dict(u=stream, steps=shape(128, 7, 7, 4, 48, dtype=jnp.bfloat16), dt_weight=shape(4, 768, 48, dtype=jnp.bfloat16), A=shape(4, 768, 1),
                B=shape(128, 7, 7, 4, 1), C=shape(128, 7, 7, 4, 1), D=shape(4, 768), delta_bias=shape(4, 768))
    text = lowered(jax.grad(lambda args: pallas_kernels.cross_selective_scan(**args).sum()), args)
    assert text.count(f"@{KERNEL}") == 2
    assert not [line for line in text.splitlines() if "stablehlo.transpose" in line and "7x7x768" in line]


@pytest.mark.parametrize("dtype,full", [(jnp.float32, True), (jnp.bfloat16, False)])
def test_step_sizes_are_multiplied_in_full_precision(dtype, full):
    """A GPU's default for float32, TF32, has an error of 4e-4."""
    x, w = jax.ShapeDtypeStruct((4, 8, 12), dtype), jax.ShapeDtypeStruct((12, 16), dtype)
    assert ("precision = [HIGHEST, HIGHEST]" in lowered(cross.product, x, w)) == full


@pytest.mark.parametrize("turns,batch,height,channels", [(1, 4, 2, 8), *(pytest.param(*row, marks=pytest.mark.slow) for row in [(1, 5, 4, 40), (4, 5, 4, 40)])])
def test_interpreted_map(monkeypatch, turns, batch, height, channels):
    """The directions in one launch: of programs that overlap in rows and channels, and added in a program."""
    monkeypatch.setattr(gpu_plan, "FEWEST", 0)
    monkeypatch.setattr(gpu_plan, "CORES", 1 if turns == 4 else 132)
    args = draw_cross(height, 3, channels, 2, batch=batch)
    assert gpu_plan.map_plan(*args["u"].shape, 1).turns == turns
    cotangent = jnp.cos(jnp.arange(args["u"].size, dtype=jnp.float32)).reshape(args["u"].shape)
    y, gradients = value_and_gradients(pallas_kernels.cross_selective_scan, args, cotangent, implementation="pallas_gpu", interpret=True)
    wanted, reference = value_and_gradients(pallas_kernels.cross_selective_scan, args, cotangent, implementation="reference")
    assert relative(y, wanted) < 1e-5
    assert {name: error for name, x in gradients.items() if (error := relative(x, reference[name])) >= 1e-5} == {}


def test_plan_chunks():
    assert gpu_plan.plan(32, 3136, 1, 96, 1).chunks > 1
    assert gpu_plan.plan(8, 2048, 1, 1536, 16).chunks == 1          # 384 programs: one wave
    assert gpu_plan.plan(1, 2048, 1, 1536, 16).chunks > 1
    assert gpu_plan.plan(128, 197, 1, 384, 16).chunks == 1
    assert gpu_plan.plan(128, 784, 1, 384, 1).chunks == 1 and gpu_plan.plan(8, 49, 1, 768, 1).chunks == 1


def test_joins_terminate():
    """A kernel that joins chunks cuts them into fewer chunks, until XLA joins them."""
    for batch in range(1, 6):
        for chunks in range(gpu_linear.FEW + 1, 2000):
            assert gpu_plan.plan(batch, chunks, 1, 96, 1).chunks < chunks


@pytest.mark.parametrize("arguments,reverse", [
    pytest.param(dict(length=21, batch=5, channels=130), False, id="overlaps", marks=pytest.mark.slow),   # of rows and tiles; a partial segment
    pytest.param(dict(length=37, batch=1, channels=96), True, id="padded-chunks"),                       # chunks that pad the length
    pytest.param(dict(length=9, batch=2, channels=6, groups=2, state=3), True, id="states"),
])
@pytest.mark.often(1)
def test_interpreted(arguments, reverse):
    args = draw_channels(**arguments)
    scan = lambda args, **options: selective_scan(**args, reverse=reverse, **options)
    y, pullback = jax.vjp(lambda args: scan(args, implementation="pallas_gpu", interpret=True), args)
    wanted, reference = jax.vjp(lambda args: scan(args, implementation="reference"), args)
    assert relative(y, wanted) < 1e-5
    for name, gradient in pullback(jnp.cos(wanted))[0].items():
        assert relative(gradient, reference(jnp.cos(wanted))[0][name]) < 1e-5, name


@pytest.mark.slow
def test_join_by_kernel(monkeypatch):
    monkeypatch.setattr(gpu_plan, "SHORTEST", 2)
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.uniform(0, 0.6, (4, 36, 3)) * np.exp(1j * rng.uniform(0, 6, (4, 36, 3))), jnp.complex64) for _ in range(2))
    assert gpu_plan.plan(4, 36, 1, 3, 1).chunks > gpu_linear.FEW
    h = gpu_linear.linear_states(a, b, Options(interpret=True))
    np.testing.assert_allclose(h, linear_scan(a, b, implementation="reference"), rtol=1e-5, atol=1e-6)
