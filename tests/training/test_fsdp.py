"""Sharded states: their memory, the same losses and weights as a replicated run, checkpoints of either, and the optimizers that are refused."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vmamba_jax
from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy, close, same
from vmamba_jax import attacks, parallel, training
from vmamba_jax.training import sharding
from vmamba_jax.training.objectives import perturb_weights
from vmamba_jax.training.optimization import elementwise

KEY = jax.random.key(1)
EMA = 0.8
TOY = Classifier(Net("layer"))


@pytest.fixture(autouse=True)
def toys_are_sharded(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST", 8)


def sgd(**options):
    """SGD, where some gradients are rounding noise (a bias before batch norm, of keys), which Adam divides by its own size."""
    return training.optimizer.create("sgd", learning_rate=0.05, weight_decay=0.1, clip_norm=0.5, **options)


def adamw(**options):
    return training.optimizer.create("adamw", learning_rate=0.01, weight_decay=0.1, clip_norm=0.5, **options)


def run(kind, step, state, steps=20, **options):
    """(losses, final state) of a run on eight devices."""
    losses = []
    monitoring = training.Monitoring(log_every=1, on_log=lambda done, values: losses.append(values), progress=False)
    state = training.train(step, state, Toy(), steps=steps, key=KEY, mesh=parallel.data_mesh(), sharding=kind, monitoring=monitoring, **options)
    return losses, state


def compare(make, classifier=TOY, atol=2e-6, steps=20, optimizer=None, shape=SHAPE):
    """The final sharded state, after metrics and weights of `steps` steps were compared with the replicated run's."""
    optimizer = optimizer or adamw()
    state = training.create_state(classifier, optimizer, jax.random.key(0), shape, ema_decay=EMA)
    made = lambda: make(classifier, optimizer, ema_decay=EMA)
    (expected, whole), (found, sharded) = (run(kind, made(), state, steps) for kind in sharding.SHARDINGS)
    assert len(found) == steps and any(row["grad_norm"] > 0.5 for row in found)  # some are clipped
    for row, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(list(row.values()), list(wanted.values()), rtol=2e-5, atol=1e-6)
    close(jax.device_get(sharded), jax.device_get(whole), atol=atol)
    return sharded


def pgd_at(classifier, optimizer, **options):
    return training.objectives.pgd_at(classifier, optimizer, attack=attacks.pgd(0.1, steps=2, step_size=0.05), **options)


def test_losses_and_weights_are_those_of_a_replicated_run():
    state = compare(pgd_at)
    whole = sum(x.nbytes for x in jax.tree.leaves(state))
    assert sharding.bytes_per_device(state) == pytest.approx(whole / 8, rel=0.1)
    for tree in (state.params, state.ema, state.opt_state[1].mu, state.opt_state[1].nu):
        assert tree["Dense_0"]["kernel"].addressable_data(3).shape == (2, 16) and tree["Dense_0"]["kernel"].shape == (16, 16)
        assert tree["Dense_1"]["bias"].sharding.is_fully_replicated


def awp(classifier, optimizer, **options):
    return perturb_weights(pgd_at(classifier, optimizer, accumulate=2, **options), 0.1)


@pytest.mark.slow
def test_batch_statistics_accumulation_and_weight_perturbation():
    compare(awp, Classifier(Net("batch")), atol=2e-5, steps=6, optimizer=sgd())


@pytest.mark.slow
def test_layer_decay_and_a_frozen_backbone():
    model = vmamba_jax.create_model("vit_tiny", num_classes=3, in_channels=1, image_size=4, patch_size=2, embed_dim=16, depth=2, num_heads=2)
    classifier = vmamba_jax.models.Classifier(model, (0.5,), (0.5,))
    compare(pgd_at, classifier, optimizer=sgd(layer_decay=0.7), steps=6, atol=2e-5)
    probe, optimizer = training.linear_probe(classifier, sgd())
    state = compare(pgd_at, probe, optimizer=optimizer, steps=6, atol=2e-5)
    start = training.create_state(classifier, sgd(), jax.random.key(0), SHAPE)
    same(*({k: v for k, v in jax.device_get(tree).items() if k != "head"} for tree in (state.params, start.params)))
    assert not np.array_equal(state.params["head"]["kernel"], start.params["head"]["kernel"])


def collectives(jaxpr, inside=False):
    """[(name, whether it is inside a loop, bytes of its operands)] of a jaxpr."""
    found = []
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name.startswith(("psum", "all_gather", "reduce_scatter")):
            found.append((name, inside, sum(v.aval.size * v.aval.dtype.itemsize for v in equation.invars)))
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                found += collectives(getattr(value, "jaxpr", value), inside or name in ("while", "scan"))
    return found


def test_no_collective_inside_the_attack():
    mesh, step = parallel.data_mesh(), pgd_at(Classifier(), adamw())
    shapes = jax.eval_shape(lambda: training.create_state(Classifier(), adamw(), jax.random.key(0), SHAPE))
    mapped = parallel.map_step(step, mesh, layout=sharding.layout(mesh, "fsdp"))
    batch = {name: x for name, x in Toy()[0].items() if name != "index"}
    found = collectives(jax.make_jaxpr(mapped)(shapes, batch, KEY).jaxpr)
    assert not any(inside for _, inside, _ in found)
    sharded = sum(sharding.axis_of(x.shape, 8) != sharding.REPLICATED for x in jax.tree.leaves(shapes.params))
    assert [sum(name == wanted for name, *_ in found) for wanted in ("all_gather", "reduce_scatter")] == [sharded, sharded] == [5, 5]


def test_checkpoints_of_either_sharding_fit_the_other_and_other_devices(tmp_path):
    optimizer, mesh = adamw(), parallel.data_mesh()
    make = functools.partial(training.create_state, Classifier(), optimizer, KEY, SHAPE, ema_decay=EMA)
    plain, shapes = make(), jax.eval_shape(make)
    sharded = make(mesh=mesh, sharding="fsdp")
    close(jax.device_get(sharded), jax.device_get(plain))
    assert sharded.params["Dense_0"]["kernel"].addressable_data(0).shape == (2, 16)
    for saved, kinds in ((sharded, ("replicated", "fsdp")), (plain, ("fsdp",))):
        folder = tmp_path / "-".join(kinds)
        with training.Checkpoints(folder) as checkpoints:
            checkpoints.save(saved.replace(step=jnp.int32(3)))
            for kind in kinds:
                for devices in (8, 2):
                    part = parallel.data_mesh(jax.devices()[:devices])
                    found = checkpoints.restore(sharding.template(shapes, part, kind))
                    same(jax.device_get(found), jax.device_get(saved.replace(step=jnp.int32(3))))
                    assert found.ema["Dense_0"]["kernel"].sharding == sharding.shardings(shapes, part, kind).ema["Dense_0"]["kernel"]
        same(training.restore_variables(folder)["params"], jax.device_get(saved.params))


@pytest.mark.parametrize("make, name", [
    (lambda: optax.lamb(0.1), "scale_by_trust_ratio"), (lambda: optax.clip_by_global_norm(1.0), "clip_by_global_norm"),
    (lambda: training.objectives.in_turn(adamw(), optax.adam(0.1)), "clip_by_global_norm"), (lambda: optax.add_noise(0.1, 0.1, 0), "add_noise"),
    (lambda: training.optimizer.create(learning_rate=0.1, weight_decay=0.1, decay_rule=lambda path, x: x.shape[0] == 16), "sizes")])
def test_optimizers_that_need_whole_arrays_are_refused_by_name(make, name):
    params = {"w": jax.ShapeDtypeStruct((16, 4), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
    with pytest.raises(ValueError, match=name):
        elementwise.check(make(), params, {**params, "w": jax.ShapeDtypeStruct((2, 4), jnp.float32)})
    elementwise.check(adamw(), params, params)


def test_wrong_arguments():
    state = training.create_state(Classifier(), adamw(), KEY, SHAPE)
    options = dict(steps=1, key=KEY, monitoring=training.Monitoring(progress=False))
    step = training.objectives.standard(Classifier(), adamw())
    with pytest.raises(ValueError, match="sharding='zero': expected one of 'replicated', 'fsdp'|sharding='zero'"):
        training.train(step, state, Toy(), sharding="zero", mesh=parallel.data_mesh(), **options)
    with pytest.raises(ValueError, match="mesh=None with sharding='fsdp'"):
        training.train(step, state, Toy(), sharding="fsdp", **options)
    with pytest.raises(TypeError, match="expected a Step"):
        training.train(lambda *args, **keywords: step(*args, **keywords), state, Toy(), sharding="fsdp", mesh=parallel.data_mesh(), **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vmamba_tiny", "vmamba_base", "deit_small", "vit_base", "resnet18", "resnet50"])
def test_an_eighth_of_the_state_within_ten_percent(name, monkeypatch):
    monkeypatch.undo()
    classifier = vmamba_jax.models.as_classifier(name)
    shapes = jax.eval_shape(lambda: training.create_state(classifier, adamw(), jax.random.key(0), (224, 224, 3), ema_decay=EMA))
    whole, parts = (sharding.bytes_per_device(sharding.template(shapes, parallel.data_mesh(), kind)) for kind in sharding.SHARDINGS)
    assert parts == pytest.approx(whole / 8, rel=0.1)


def summed_bytes(step, kind):
    """Bytes of the operands of a mapped step's sums over the devices."""
    mesh = parallel.data_mesh()
    shapes = jax.eval_shape(lambda: training.create_state(TOY, adamw(), jax.random.key(0), SHAPE))
    mapped = parallel.map_step(step, mesh, layout=sharding.layout(mesh, kind))
    batch = {name: x for name, x in Toy()[0].items() if name != "index"}
    found = collectives(jax.make_jaxpr(mapped)(shapes, batch, KEY).jaxpr)
    return sum(size for name, _, size in found if name.startswith(("psum", "reduce_scatter")))


@pytest.mark.parametrize("kind", sharding.SHARDINGS)
def test_gradients_summed_in_bfloat16_are_half_the_bytes(kind):
    make = functools.partial(training.objectives.standard, TOY, adamw())
    weights = sum(x.size for x in jax.tree.leaves(jax.eval_shape(lambda: TOY.init(KEY, SHAPE))))
    wide, narrow = summed_bytes(make(), kind), summed_bytes(make(reduce_dtype="bfloat16"), kind)
    assert wide - narrow == 2 * weights and 4 * weights <= wide < 4 * weights + 64
    with pytest.raises(ValueError, match="reduce_dtype='int8': expected a floating dtype"):
        make(reduce_dtype="int8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sharding.SHARDINGS)
def test_narrow_sums_and_moments_stay_close(kind):
    def losses(options, **step):
        optimizer = adamw(**options)
        state = training.create_state(TOY, optimizer, jax.random.key(0), SHAPE)
        rows, state = run(kind, training.objectives.standard(TOY, optimizer, **step), state, steps=30)
        return np.array([row["loss"] for row in rows]), state

    (wide, state), (narrow, other) = losses({}), losses({"mu_dtype": "bfloat16"}, reduce_dtype="bfloat16")
    assert not np.array_equal(wide, narrow) and np.abs(wide - narrow).max() < 0.02 * wide[0]
    bytes_of = lambda state, field: sharding.bytes_per_device(getattr(state.opt_state[1], field))
    assert bytes_of(other, "mu") * 2 == bytes_of(state, "mu") == bytes_of(other, "nu") == bytes_of(state, "nu")
