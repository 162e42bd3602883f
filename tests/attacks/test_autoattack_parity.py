"""The parts of AutoAttack against the reference program's arrays, in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks
from vmamba_jax.attacks import losses, norms, randomized
from vmamba_jax.attacks.autoattack import apgd_schedule, square_proposals
from vmamba_jax.attacks.autoattack.apgd import towards
from vmamba_jax.attacks.autoattack.fab import nearest_plane, plane, project_to_plane
from vmamba_jax.attacks.autoattack.search import ranked_targets
from vmamba_jax.attacks.autoattack.square import Draws, random_search

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
LOSSES = {"ce": "cross_entropy", "dlr": "dlr"}
every_norm = pytest.mark.parametrize("norm", NORMS)


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def check(found, expected):
    np.testing.assert_allclose(np.moveaxis(np.asarray(found), -1, 1), expected, atol=1e-8, rtol=0)


def check_run(arrays, name, run):
    # The path of one image depends on the last bit of its arithmetic: it differs between two compilations with different XLA flags.
    images = np.arange(16) != (13 if name == "apgd_dlr_L1_100" else -1)
    check(run.best[images], arrays[f"{name}_x_best"][images])
    check(run.adversarial[images], arrays[f"{name}_x_best_adv"][images])
    np.testing.assert_allclose(run.best_value[images], arrays[f"{name}_loss_best"][images], atol=1e-8, rtol=0)
    np.testing.assert_array_equal(~run.success, arrays[f"{name}_acc"])


def ascend(net, images, criterion, norm, eps, checkpoints, steps):
    """A run from the images, as the reference records it; in l1 the reference takes a given start for the end of an earlier phase."""
    evaluate = randomized.value_and_gradient(net, criterion, 1)
    phase = apgd_schedule.Phase(attacks.ThreatModel(norm, eps), checkpoints, steps, resumed=norm == "l1")
    return apgd_schedule.ascend(phase, evaluate, images, images, keep_last=True)


def checkpoints(norm, steps):
    table = np.full(101, -1, np.int32)  # one length, so one program, for all numbers of steps
    table[:steps + 1] = apgd_schedule.sparse_checkpoints(steps) if norm == "l1" else apgd_schedule.dense_checkpoints(steps, 0.75)
    return table


@pytest.mark.parametrize("norm,loss", [pytest.param(norm, loss, marks=[pytest.mark.slow] if (norm, loss) not in (("linf", "ce"), ("l1", "ce"), ("l2", "dlr")) else [])
                                       for norm in NORMS for loss in LOSSES])
@pytest.mark.often(1)
def test_apgd(oracle, x64, norm, loss):
    arrays, net, images, labels = oracle("attacks_autoattack_f64")
    eps = float(arrays[f"eps_{NORMS[norm]}"])
    run = jax.jit(lambda checkpoints, steps: ascend(net, images, losses.criterion(labels, LOSSES[loss]), norm, eps, checkpoints, steps))
    for steps in (10, 20, 100):
        check_run(arrays, f"apgd_{loss}_{NORMS[norm]}_{steps}", run(checkpoints(norm, steps), steps))


@every_norm
@pytest.mark.often(1)
def test_apgd_targeted(oracle, x64, norm):
    arrays, net, images, labels = oracle("attacks_autoattack_f64")
    name = f"apgdt_{NORMS[norm]}_20"
    criterion = towards(labels, jnp.asarray(arrays[f"{name}_target"]), "dlr_targeted")
    eps = float(arrays[f"eps_{NORMS[norm]}"])
    check_run(arrays, name, jax.jit(lambda x: ascend(net, x, criterion, norm, eps, checkpoints(norm, 20), 20))(images))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.often(1)
def test_public_apgd_agrees(oracle, x64, norm):
    arrays, net, images, labels = oracle("attacks_autoattack_f64")
    attack = attacks.apgd(float(arrays[f"eps_{NORMS[norm]}"]), 20, norm, random_start=False)
    broken = net(jax.jit(attack)(net, images, labels)).argmax(1) != labels
    np.testing.assert_array_equal(~broken, arrays[f"apgd_ce_{NORMS[norm]}_20_acc"])
    strongest = jax.jit(attacks.apgd(attack.eps, 20, norm, random_start=False, keep="highest_loss"))(net, images, labels)
    check(strongest, arrays[f"apgd_ce_{NORMS[norm]}_20_x_best"])


def test_l1_projection(golden, x64):
    arrays = golden("attacks_autoattack_f64")
    images, delta = nhwc(arrays["l1p_x"]), nhwc(arrays["l1p_y"])
    inside = norms.l1_in_box(images, delta, float(arrays["l1p_eps"]), 0.0, 1.0)
    check(inside - delta, arrays["l1p_delta"])


@every_norm
def test_plane_projection(golden, x64, norm):
    arrays = golden("attacks_autoattack_f64")
    t, w, b = (jnp.asarray(arrays[f"proj_{name}"]) for name in "twb")
    found = jax.jit(lambda t: project_to_plane(norm, t, w, b, 0.0, 1.0))(t)
    np.testing.assert_allclose(found, arrays[f"proj_{norm}"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("norm,target", [pytest.param(norm, target, marks=[pytest.mark.slow] if (norm, target) not in (("linf", "_t2"), ("l1", "_t2"), ("l2", "")) else [])
                                         for norm in NORMS for target in ("", "_t2")])
@pytest.mark.often(1)
def test_fab(oracle, x64, norm, target):
    arrays, net, images, labels = oracle("attacks_autoattack_f64")
    clean = net(images)
    linearize = plane(net, labels, ranked_targets(clean, 1)[:, 0]) if target else nearest_plane(net, labels, norm)
    attack = attacks.fab(1.0, 20, norm)
    found, size = jax.jit(lambda x: attack.approach(net, linearize, x, labels, x))(images)
    right, name = np.asarray(clean.argmax(1) == labels), f"fab{target}_{NORMS[norm]}_20"
    check(np.where(right[:, None, None, None], found, images), arrays[name])
    np.testing.assert_allclose(np.where(right, size, 0), arrays[f"{name}_norm"], atol=1e-8, rtol=0)


def recorded_draws(arrays, norm, queries, shape):
    """(the start's draws, `Draws` of each query) of the whole batch, from the reference's draws for the images that were still robust."""
    n, h, w, c = shape
    made = arrays[f"square_{NORMS[norm]}_queries"].astype(int)
    pieces = np.split(arrays[f"square_{NORMS[norm]}_choice_flat"], np.cumsum(arrays[f"square_{NORMS[norm]}_choice_sizes"])[:-1])
    ints, coins = arrays[f"square_{NORMS[norm]}_ints"], arrays[f"square_{NORMS[norm]}_rand1"] > 0.5
    signs = np.ones((queries, n, c))
    if norm == "linf":
        first = pieces[0].reshape(n, c, w).swapaxes(1, 2),
        signs[:] = np.stack(pieces[1:])[:, None]
        corner = np.broadcast_to(ints.reshape(queries, 1, 2), (queries, n, 2))
        return first, Draws(corner, corner, signs, np.zeros((queries, n), bool))
    rows, columns = square_proposals.tiling((h, w))[2]
    tiles = rows * columns
    first = (np.stack(pieces[:tiles]).reshape(rows, columns, n, c).transpose(2, 0, 1, 3),
             np.broadcast_to(coins[:tiles].reshape(1, rows, columns), (n, rows, columns)))
    for i, piece in enumerate(pieces[tiles:]):
        signs[i, made >= i + 2] = piece.reshape(-1, c)
    corner, other = (np.broadcast_to(x[:, None], (queries, n, 2)) for x in ints.reshape(queries, 2, 2).swapaxes(0, 1))
    flip = np.broadcast_to(coins[tiles:].reshape(queries, 5)[:, 4:], (queries, n))  # after the four of the two corners
    return first, Draws(corner, other, signs, flip)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.often(1)
def test_square(oracle, x64, norm):
    arrays, net, images, labels = oracle("attacks_autoattack_f64")
    images, labels, queries = images[:12], labels[:12], 200
    first, draws = recorded_draws(arrays, norm, queries, images.shape)
    first, draws = jax.tree.map(jnp.asarray, (first, draws))
    threat = attacks.ThreatModel(norm, float(arrays[f"eps_{NORMS[norm]}"]))
    sides = attacks.square(threat.eps, queries, norm).sides(images.shape[1:3])
    evaluate = losses.objective(net, labels, "margin")

    @jax.jit
    def run(first, draws):
        if norm == "linf":
            start = jnp.clip(square_proposals.stripes(images, threat.eps, *first), 0, 1)
        else:
            start = square_proposals.tiles(threat, images, *first)
        return random_search(evaluate, threat, images, start, sides, lambda i, side: jax.tree.map(lambda x: x[i], draws))
    used, found, value, success = run(first, draws)
    np.testing.assert_array_equal(used, arrays[f"square_{NORMS[norm]}_queries"])
    check(found, arrays[f"square_{NORMS[norm]}_x"])
    assert success.any() and not success.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_schedule(golden, norm):
    p = golden("attacks_autoattack_f64")[f"square_{NORMS[norm]}_psched"]
    side = np.maximum(np.round(np.sqrt(p * 64 * 64)), 1 if norm == "linf" else 3).astype(int)
    if norm == "l2":
        side += side % 2 == 0
    np.testing.assert_array_equal(attacks.square(0.1, 5000, norm).sides((64, 64)), np.minimum(side, 64))
