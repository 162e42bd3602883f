"""Disturbances against plain loops: which pixels are dropped, how many, and independence of the batch."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax.core import scan_orders
from vmamba_jax.evaluation import disturbances
from vmamba_jax.evaluation.disturbances import DISTURBANCES, GRIDS, PROFILES, create
from vmamba_jax.evaluation.disturbances.patch_drops import outwards

KEY = jax.random.key(3)
IMAGES = 0.2 + 0.6 * jax.random.uniform(jax.random.key(0), (4, 12, 12, 3))   # no pixel is 0
LABELS = jnp.arange(4) % 3
NEEDED = {"window_drop": {"size": 5}}
LAYOUTS = ("random_drop", "dispersed_drop", "dense_drop", "center_drop", "border_drop", "contiguous_drop", "salient_drop",
           "non_salient_drop")
WEIGHTS = 0.1 * jax.random.normal(jax.random.key(5), (432, 3))


def net(weights, images):
    return jnp.tanh(images.reshape(len(images), -1) @ weights)


MODEL = (Partial(net, WEIGHTS), LABELS)


def made(name, **options):
    return create(name, **NEEDED.get(name, {}) | ({} if name in NEEDED else {"grid": 4}) | options)


def dropped(disturbance, images=IMAGES):
    """Pixels that the disturbance set to 0 in all channels, (b, H, W); all others must be unchanged."""
    out = np.asarray(disturbance(images, KEY, *MODEL))
    black = (out == 0).all(-1)
    np.testing.assert_array_equal(out, np.where(black[..., None], 0, images))
    return black


def visits(direction, rows, columns):
    """The patches in scan order, as the published program rearranges them."""
    forward = [(r, c) for r in range(rows) for c in range(columns)] if direction.startswith("rows") else \
        [(r, c) for c in range(columns) for r in range(rows)]
    return forward[::-1] if direction.endswith("back") else forward


def lost(profile, P, r, i, N):
    match profile:
        case "linear":
            return int(P * r * (i + 1) / N)
        case "falling":
            return int(P * r) - int(P * r * (i + 1) / N)
        case "peak":
            return int(P * r * (i + 1) / (N // 2)) if i < N // 2 else int(P * r * (N - i) / (N // 2))
        case "trough":
            return int(P * r) - lost("peak", P, r, i, N)
        case "uniform":
            return int(P * r)
        case "sequential":
            return P if i < int(N * r) else 0


@pytest.mark.parametrize("direction", scan_orders.DIRECTIONS)
@pytest.mark.parametrize("profile", PROFILES)
def test_information_drop(profile, direction):
    black = dropped(create("information_drop", rate=0.7, profile=profile, direction=direction, grid=(2, 4)))
    for i, (r, c) in enumerate(visits(direction, 2, 4)):
        patch = black[:, 6 * r:6 * r + 6, 3 * c:3 * c + 3]
        assert (patch.sum((1, 2)) == lost(profile, 18, 0.7, i, 8)).all(), (i, patch.sum((1, 2)))
    if profile != "sequential":
        assert (black[0] != black[1]).any()


def test_information_drop_is_uniform():
    """Each pixel of a patch is dropped with the same probability: three of nine, in 600 images."""
    images = jnp.ones((600, 6, 6, 1))
    share = np.asarray(create("information_drop", rate=1 / 3 + 1e-9, profile="uniform", grid=2)(images, KEY) == 0).mean(0)
    assert abs(share - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 600)


def test_peak_of_an_odd_grid():
    """(N - i) / (N // 2) is 5 / 4 in the middle of nine patches, where the published program raises an error."""
    black = dropped(create("information_drop", rate=1.0, profile="peak", grid=3))
    assert black[:, 4:8, 4:8].all() and not dropped(create("information_drop", rate=1.0, profile="trough", grid=3))[:, 4:8, 4:8].any()


def test_shared():
    """The same random numbers for all images, from the seed; no keys are needed."""
    same = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    for name, content in (("information_drop", "zeros"), ("dense_drop", ("noise", 0.1)), ("random_drop", "shuffle"),
                          ("patch_shuffle", None)):
        options = {} if content is None else {"content": content}
        pictures, others = (np.asarray(made(name, shared=True, seed=seed, **options)(same)) for seed in (0, 1))
        assert (pictures == pictures[:1]).all() and (pictures[0] != IMAGES[0]).any() and (pictures != others).any(), name


@pytest.mark.parametrize("area", [0, 1, 7, 16, 0.5, 0.8, 1.0], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_have_equal_area(name, area):
    count = area if isinstance(area, int) else int(16 * area)
    black = dropped(made(name, area=area))
    assert (black.sum((1, 2)) == 9 * count).all()
    patches = black.reshape(4, 4, 3, 4, 3).sum((2, 4))
    assert set(patches.ravel().tolist()) <= {0, 9}


def pattern(disturbance):
    return dropped(disturbance)[0, ::3, ::3].astype(int).tolist()


def test_layouts():
    assert pattern(made("dispersed_drop", area=4)) == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert pattern(made("dispersed_drop", area=8)) == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert pattern(made("center_drop", area=5)) == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert pattern(made("border_drop", area=12)) == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert pattern(made("ring_drop", first=1)) == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert pattern(made("contiguous_drop", area=6)) == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert pattern(made("contiguous_drop", area=6, direction="columns_back")) == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    black = dropped(create("window_drop", size=5, top=2, left=7))
    assert black.sum() == 4 * 25 and black[:, 2:7, 7:12].all()
    assert dropped(create("window_drop", size=4))[:, 4:8, 4:8].all()


def test_dispersed_quarter():
    black = create("dispersed_drop", area=0.25)(jnp.ones((1, 14, 14, 1)))[0, :, :, 0] == 0
    assert np.argwhere(black).tolist() == [[i, j] for i in range(0, 14, 2) for j in range(0, 14, 2)]


def test_dense_drop():
    images, seen = jnp.ones((200, 5, 5, 1)), set()
    for black in np.asarray(create("dense_drop", grid=5, area=7)(images, KEY) == 0)[..., 0]:
        top, left = np.argwhere(black).min(0)
        expected = np.zeros((5, 5), bool)
        expected[top:top + 2, left:left + 3] = expected[top + 2, left] = True
        np.testing.assert_array_equal(black, expected)
        seen.add((top, left))
    assert seen == {(i, j) for i in range(3) for j in range(3)}


@pytest.mark.parametrize("grid", [4, 7])
def test_outwards(grid):
    """Rings from the center outwards, each clockwise from its top left: successive patches of a ring touch."""
    order = outwards(grid)
    path = [tuple(np.argwhere(order == i)[0]) for i in range(grid**2)]
    ring = [np.floor(max(abs(y - (grid - 1) / 2), abs(x - (grid - 1) / 2))) for y, x in path]
    assert ring == sorted(ring)
    for a, b, same in zip(path, path[1:], np.diff(ring) == 0, strict=False):
        assert not same or abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1
    for k in set(ring):
        assert path[ring.index(k)] == min(p for p, r in zip(path, ring, strict=True) if r == k)


def test_random_drop_is_uniform():
    share = np.asarray(create("random_drop", grid=4, area=4)(jnp.ones((800, 4, 4, 1)), KEY) == 0).mean(0)
    assert abs(share - 0.25).max() < 5 * np.sqrt(3 / 16 / 800)


def test_old_names():
    with pytest.warns(DeprecationWarning, match="'centre_drop' is now 'center_drop'"):
        assert create("centre_drop", grid=4, area=5) == create("center_drop", grid=4, area=5)
    for old, new in (("CentreDrop", "CenterDrop"), ("CONTENTS", "FILLS")):
        with pytest.warns(DeprecationWarning, match=f"{old} is now .*:?{new}"):
            assert getattr(disturbances, old) is getattr(disturbances, new)


# ---- saliency

def test_salient_by_area_and_mass():
    """Saliency maps of another size than the images; ties are broken by position."""
    maps = np.array([[[8, 1], [4, 3]], [[1, 1], [1, 1]]], float)
    images = jnp.ones((2, 4, 4, 1))

    def chosen(name, **options):
        return (np.asarray(create(name, grid=2, saliency=maps, **options)(images))[:, ::2, ::2, 0] == 0).astype(int).tolist()
    assert chosen("salient_drop", area=2) == [[[1, 0], [1, 0]], [[1, 1], [0, 0]]]
    assert chosen("non_salient_drop", area=2) == [[[0, 1], [0, 1]], [[1, 1], [0, 0]]]
    assert chosen("salient_drop", by="mass", area=0.5) == [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]       # 8 of 16 are a half
    assert chosen("salient_drop", by="mass", area=0.51) == [[[1, 0], [1, 0]], [[1, 1], [1, 0]]]
    assert chosen("non_salient_drop", by="mass", area=0.5) == [[[0, 1], [1, 1]], [[1, 1], [0, 0]]]
    assert chosen("non_salient_drop", by="mass", area=0.49) == [[[0, 1], [0, 1]], [[1, 0], [0, 0]]]


def test_saliency_of_the_model():
    loss = lambda x: -jax.nn.log_softmax(net(WEIGHTS, x))[jnp.arange(4), LABELS].sum()
    gradient = np.abs(jax.grad(loss)(IMAGES)).sum(-1).reshape(4, 4, 3, 4, 3).sum((2, 4)).reshape(4, -1)
    black = dropped(made("salient_drop", area=5))[:, ::3, ::3].reshape(4, -1)
    for scores, chosen in zip(gradient, black, strict=True):
        assert set(np.flatnonzero(chosen)) == set(np.argsort(-scores)[:5])
    assert made("salient_drop").needs_model and not made("salient_drop", saliency=lambda x: x[..., 0]).needs_model


def test_saliency_function_with_weights():
    """The weights are leaves: other weights need no new compilation."""
    traces = []

    def weighted(w, x):
        traces.append(1)
        return (w * x).sum(-1)
    run = jax.jit(lambda disturbance, x: disturbance(x))
    for seed in (0, 1):
        w = jax.random.normal(jax.random.key(seed), (3,))
        out = run(made("salient_drop", area=3, saliency=Partial(weighted, w)), IMAGES)
        np.testing.assert_array_equal(out, made("salient_drop", area=3, saliency=np.asarray((w * IMAGES).sum(-1)))(IMAGES))
    assert len(traces) == 1


# ---- fills

def test_mean():
    images = np.asarray(made("center_drop", area=4, content="mean")(IMAGES))
    np.testing.assert_allclose(images[:, 3:9, 3:9], np.broadcast_to([0.485, 0.456, 0.406], (4, 6, 6, 3)), rtol=1e-6)
    images = np.asarray(made("center_drop", area=4, content=("mean", 0.25))(IMAGES))
    assert (images[:, 3:9, 3:9] == 0.25).all() and (images[:, :3] == IMAGES[:, :3]).all()


def test_noise():
    images = jnp.full((50, 12, 12, 3), 0.5)
    change = np.asarray(made("center_drop", area=4, content=("noise", 0.1))(images, KEY)) - 0.5
    inside = change[:, 3:9, 3:9]
    assert abs(inside.std() - 0.1) < 0.003 and abs(inside.mean()) < 0.003 and change[:, :3].any() is np.False_
    strong = np.asarray(made("center_drop", area=4, content=("noise", 3))(images, KEY))
    assert strong.min() == 0 and strong.max() == 1


@pytest.mark.parametrize("side", [12, 13])
def test_shuffle_within_patches(side):
    """Every patch keeps its pixels with all channels, pixels outside are unchanged; also for patches of unequal size."""
    images = jax.random.uniform(KEY, (3, side, side, 2))
    out = np.asarray(create("contiguous_drop", grid=4, area=6, content="shuffle")(images, KEY))
    edge = lambda k: -(-k * side // 4)
    for r in range(4):
        for c in range(4):
            part = np.s_[:, edge(r):edge(r + 1), edge(c):edge(c + 1)]
            before, after = (np.asarray(x[part]).reshape(3, -1, 2) for x in (images, out))
            if 4 * r + c >= 6:
                np.testing.assert_array_equal(after, before)
                continue
            for one, other in zip(before, after, strict=True):
                assert sorted(map(tuple, one)) == sorted(map(tuple, other)) and (one != other).any()


def test_pgd_changes_the_mask_only():
    logits_fn, labels = MODEL
    out = made("random_drop", area=8, content=("pgd", 0.05, 5))(IMAGES, KEY, logits_fn, labels)
    mask = made("random_drop", area=8).mask(IMAGES, jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(4)))
    assert (np.asarray(out != IMAGES).any(-1) <= np.asarray(mask[..., 0])).all() and abs(out - IMAGES).max() <= 0.05 + 1e-6
    loss = lambda x: -jax.nn.log_softmax(logits_fn(x))[jnp.arange(4), labels]
    assert (loss(out) > loss(IMAGES) + 0.01).all()


# ---- order of patches

def patches(image, rows, columns):
    h, w = image.shape[0] // rows, image.shape[1] // columns
    return [image[h * r:h * r + h, w * c:w * c + w] for r in range(rows) for c in range(columns)]


@pytest.mark.parametrize("grid", [*GRIDS, (3, 5)], ids=str)
@pytest.mark.often(4)
def test_patch_shuffle(grid):
    rows, columns = grid
    images = np.random.default_rng(0).random((2, 2 * rows, 3 * columns, 2), np.float32)
    out = np.asarray(create("patch_shuffle", grid=grid)(jnp.asarray(images), KEY))
    found = []
    for before, after in zip(images, out, strict=True):
        where = {patch.tobytes(): i for i, patch in enumerate(patches(before, rows, columns))}
        found.append([where[patch.tobytes()] for patch in patches(after, rows, columns)])
        assert sorted(found[-1]) == list(range(rows * columns))
    assert found[0] != found[1]


def test_patch_reorder():
    image = np.random.default_rng(0).random((1, 4, 6, 1), np.float32)
    out = np.asarray(create("patch_reorder", grid=(2, 3), order="columns")(jnp.asarray(image)))
    before = patches(image[0], 2, 3)
    for place, patch in zip([(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)], patches(out[0], 2, 3), strict=True):
        np.testing.assert_array_equal(patch, before[3 * place[0] + place[1]])


def test_orders():
    order = lambda kind, **options: disturbances.Order(kind, **options)(3, 4).tolist()
    assert order("rows") == list(range(12)) and order("reversed") == list(range(12))[::-1]
    assert order("columns") == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert order("snake") == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]
    assert order("blocks") == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11]
    assert order("blocks", block=3) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 3, 7, 11]
    assert sorted(order("random")) == list(range(12)) and order("random") == order("random") != order("random", seed=1)
    with pytest.raises(ValueError, match="kind='spiral'"):
        disturbances.Order("spiral")


# ---- the call

CASES = [*DISTURBANCES, ("random_drop", "shuffle"), ("dense_drop", ("noise", 0.2)), ("center_drop", ("pgd", 0.05, 1, 0.01))]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.often(5)
def test_batches_jit_and_settings(case):
    """The result is independent of the batch and of compilation; the settings survive JSON."""
    name, content = case if isinstance(case, tuple) else (case, None)
    disturbance = made(name, **{} if content is None else {"content": content})
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(4))
    logits_fn, labels = MODEL
    whole = np.asarray(jax.jit(lambda *args: disturbance(*args, logits_fn, labels))(IMAGES, KEY))
    assert whole.shape == IMAGES.shape and whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 1 and (whole != IMAGES).any()
    np.testing.assert_allclose(disturbance(IMAGES[2:], keys[2:], logits_fn, labels[2:]), whole[2:], atol=1e-6)
    if disturbance.draws:
        assert (np.asarray(disturbance(IMAGES, jax.random.key(9), *MODEL)) != whole).any()
    assert disturbances.create(**json.loads(json.dumps(disturbance.settings))) == disturbance
    assert hash(disturbance) == hash(made(name, **{} if content is None else {"content": content}))


@pytest.mark.parametrize(("name", "options", "error", "text"), [
    ("drop", {}, ValueError, "disturbance='drop'"), ("random_drop", {"size": 3}, TypeError, "size=3: expected an option of disturbance"),
    ("random_drop", {"grid": 0}, ValueError, "grid=0"), ("random_drop", {"area": 197}, ValueError, "area=197"),
    ("random_drop", {"area": 1.5}, ValueError, "area=1.5"), ("random_drop", {"area": "all"}, TypeError, "area='all'"),
    ("random_drop", {"content": "grey"}, ValueError, "content='grey'"), ("random_drop", {"content": ("noise", -1)}, ValueError, "sigma=-1"),
    ("random_drop", {"content": ("mean", 2)}, ValueError, "value="), ("random_drop", {"seed": -1}, ValueError, "seed=-1"),
    ("random_drop", {"shared": 1}, TypeError, "shared=1"), ("contiguous_drop", {"direction": "up"}, ValueError, "direction='up'"),
    ("information_drop", {"profile": "flat"}, ValueError, "profile='flat'"), ("information_drop", {"rate": 1.1}, ValueError, "rate=1.1"),
    ("salient_drop", {"by": "mass", "area": 3}, TypeError, "area=3"), ("salient_drop", {"saliency": "map"}, ValueError, "saliency='map'"),
    ("ring_drop", {"grid": 4, "first": 2}, ValueError, "first=2"), ("patch_shuffle", {"grid": (2, 2, 2)}, ValueError, "grid=(2, 2, 2)"),
    ("patch_reorder", {"order": "spiral"}, ValueError, "kind='spiral'"),
], ids=str)
def test_wrong_settings(name, options, error, text):
    with pytest.raises(error) as raised:
        create(name, **options)
    assert text in str(raised.value) and "expected" in str(raised.value)


@pytest.mark.parametrize(("disturbance", "images", "keys", "text"), [
    (("random_drop", {"grid": 4}), IMAGES, None, "keys=None"), (("random_drop", {"grid": 13}), IMAGES, KEY, "grid=13"),
    (("random_drop", {"grid": 4}), IMAGES[0], KEY, "(12, 12, 3)"), (("patch_shuffle", {"grid": 5}), IMAGES, KEY, "(5, 5)"),
    (("salient_drop", {"grid": 4}), IMAGES, None, "logits_fn"), (("window_drop", {"size": 5, "top": 9}), IMAGES, None, "top=9"),
    (("center_drop", {"grid": 4, "content": ("mean", (0.1, 0.2))}), IMAGES, None, "3 channels"),
    (("salient_drop", {"grid": 4, "saliency": np.ones((3, 4, 4))}), IMAGES, None, "(3, 4, 4)"),
], ids=lambda x: str(x)[:40])
def test_wrong_calls(disturbance, images, keys, text):
    name, options = disturbance
    with pytest.raises(ValueError, match="expected") as raised:
        create(name, **options)(images, keys)
    assert text in str(raised.value)


def test_inputs_are_checked():
    images, labels = jnp.full((3, 8, 8, 3), 0.5), jnp.arange(3)
    disturb = disturbances.create("salient_drop", grid=2, area=1)
    model = lambda x: x.mean((1, 2))
    for wrong, message in ((labels + 1, r"labels\[2\]=3"), (labels[:, None], r"labels.shape=\(3, 1\)"), (labels - 1, r"labels\[0\]=-1"),
                           (labels * 1.0, "labels.dtype")):
        with pytest.raises((ValueError, TypeError), match=message):
            disturb(images, None, model, wrong)
    with pytest.raises(ValueError, match=r"images=\[nan, nan\]"):
        disturb(images.at[0].set(jnp.nan), None, model, labels)
    assert disturb(images[:0], None, model, labels[:0]).shape == (0, 8, 8, 3)
