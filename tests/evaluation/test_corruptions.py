"""Corruptions from keys: random numbers, gray levels, tables, arguments; accuracy under corruptions; mean corruption error."""
import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import evaluation, parallel
from vmamba_jax.attacks import per_image_keys
from vmamba_jax.evaluation import corruptions
from vmamba_jax.evaluation.corruptions import blur, digital, filters, weather

KEY = jax.random.key(3)
WITHOUT_FROST = [name for name in corruptions.CORRUPTIONS + corruptions.EXTRA if name != "frost"]


@functools.cache
def photos(n=3, side=16):
    """Smooth random images of whole gray levels."""
    x = np.random.default_rng(0).random((n, 4, 4, 3)).repeat(side // 4, 1).repeat(side // 4, 2)
    return (np.round(x * 255) / 255).astype(np.float32)


def test_names():
    assert len(corruptions.CORRUPTIONS) == 15 == len(set(corruptions.CORRUPTIONS)) and len(corruptions.EXTRA) == 4
    assert set(corruptions.FUNCTIONS) == {*corruptions.CORRUPTIONS, *corruptions.EXTRA}
    assert set(corruptions.ALEXNET) == set(corruptions.CORRUPTIONS)
    for name in corruptions.FUNCTIONS:
        for table in corruptions.TABLES:
            assert len({corruptions.parameters(name, severity, table) for severity in corruptions.SEVERITIES}) == 5


@pytest.mark.parametrize(("table", "sha256"), [
    (224, "ddb0592613e7bf4334fadb3155ce69dc8e928161b8485690b485e6c051eca85c"),
    (64, "40bddee15494ade719d6dd208bb6d192de6dcf3bee2e63963f9f60c320a17002"),
    (32, "adc80ef6f6c14b5028f57bf618d7434fb23cf615896643ff400803137895f8a5")])
def test_released_parameters(table, sha256):
    """Digests of the tables, which were compared value by value with the three released programs (hendrycks/robustness)."""
    plain = lambda x: [round(float(y), 6) for y in x] if isinstance(x, tuple) else round(float(x), 6)
    content = {name: [[plain(x) for x in corruptions.parameters(name, severity, table)] for severity in corruptions.SEVERITIES]
               for name in sorted(corruptions.FUNCTIONS)}
    assert hashlib.sha256(json.dumps(content).encode()).hexdigest() == sha256


@pytest.mark.parametrize("name", ["brightness", "defocus_blur"])
def test_input_is_rounded_to_levels(name):
    images = photos()
    between = np.clip(images + 0.4 / 255, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(corruptions.corrupt(name, 1, between, KEY), corruptions.corrupt(name, 1, images, KEY))


@pytest.mark.parametrize("name", WITHOUT_FROST)
@pytest.mark.often(6)
def test_levels_and_batch_independence(name):
    images, keys = photos(), per_image_keys(KEY, 3)
    x = np.asarray(corruptions.corrupt(name, 5, images, keys))
    assert x.shape == images.shape and x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
    np.testing.assert_allclose(x * 255, np.round(x * 255), atol=1e-4)
    assert (x != images).any((1, 2, 3)).all()
    np.testing.assert_array_equal(corruptions.corrupt(name, 5, images[::-1], keys[::-1])[::-1], x)
    np.testing.assert_array_equal(corruptions.corrupt(name, 5, images, KEY), x)
    twins = np.asarray(corruptions.corrupt(name, 5, images[[0, 0, 0]], keys))
    assert (twins[0] == twins[1]).all() == (corruptions.FUNCTIONS[name].draw is None)


def test_tables_by_size():
    from vmamba_jax.evaluation.corruptions.severities import table_for
    assert [table_for(side) for side in (8, 32, 45, 46, 64, 119, 120, 224, 512)] == [32, 32, 32, 64, 64, 64, 224, 224, 224]
    images = photos()
    small, large = (corruptions.corrupt("contrast", 1, images, KEY, table=table) for table in (32, 224))
    np.testing.assert_array_equal(corruptions.corrupt("contrast", 1, images, KEY), small)
    assert images.std() > small.std() > large.std()


def test_arguments():
    images = photos()
    for arguments, message in (
            (("mist", 1, images, KEY), "name='mist'"), (("fog", 0, images, KEY), "severity=0"), (("fog", 6, images, KEY), "severity=6"),
            (("fog", 1, images[0], KEY), "images.shape="), (("fog", 1, images[:, :8], KEY), r"expected \(batch, S, S, 3\)"),
            (("fog", 1, images * 2, KEY), r"images=\[0.*, 1.99.*\]"),
            (("fog", 1, images, per_image_keys(KEY, 2)), "each of 3 images")):
        with pytest.raises(ValueError, match=message):
            corruptions.corrupt(*arguments)
    with pytest.raises(ValueError, match="table=100"):
        corruptions.corrupt("fog", 1, images, KEY, table=100)
    with pytest.raises(TypeError, match="images.dtype=uint8"):
        corruptions.corrupt("fog", 1, np.uint8(images), KEY)


def drawn(name, level, n=8, side=64, table=224, severity=5):
    images = np.full((n, side, side, 3), level / 255, np.float32)
    return np.asarray(corruptions.corrupt(name, severity, images, KEY, table=table)) * 255


def test_impulses():
    x = drawn("impulse_noise", 100)  # a fraction of 0.27, half of it white
    share, error = 0.27 / 2, 4 * (0.135 * 0.865 / x.size) ** 0.5
    assert set(np.unique(x.round())) == {0, 100, 255}
    assert abs((x > 254).mean() - share) < error and abs((x < 1).mean() - share) < error
    draws = {"flip": jnp.array([[[True, True, False]]]), "salt": jnp.array([[[True, False, True]]])}
    assert corruptions.FUNCTIONS["impulse_noise"].apply(jnp.full((1, 1, 3), 0.5), draws, 0.1).tolist() == [[[1, 0, 0.5]]]


@pytest.mark.parametrize("rate", [3, 60, 500])
def test_photons_are_poisson(rate):
    image, draw = jnp.full((150, 150, 3), 200 / 255), corruptions.FUNCTIONS["shot_noise"].draw
    counts, mean = np.asarray(draw(KEY, image, rate)), rate * 200 / 255
    assert (counts == counts.round()).all() and not np.asarray(draw(KEY, 0 * image, rate)).any()
    assert abs(counts.mean() - mean) < 4 * (mean / counts.size) ** 0.5 and abs(counts.var() / mean - 1) < 0.05
    frequent = int(mean)
    log_mass = frequent * np.log(mean) - mean - np.log(np.arange(1, frequent + 1)).sum()
    assert abs((counts == frequent).mean() - np.exp(log_mass)) < 4 * (np.exp(log_mass) / counts.size) ** 0.5


def test_normal_noise():
    x = drawn("gaussian_noise", 128, table=32, severity=1)
    assert abs(x.mean() - 127.5) < 0.3 and abs(x.std() / 255 - 0.04) < 0.001
    x = drawn("speckle_noise", 128, table=32, severity=1)
    assert abs(x.std() / 128 - 0.06) < 0.001


@pytest.mark.parametrize("reach", [1, 3])
def test_glass_blur_equals_the_loop(reach):
    side, rng = 14, np.random.default_rng(reach)
    image, moves = rng.random((side, side, 3)).astype(np.float32), rng.integers(-reach, reach, (side - 2 * reach, side - 2 * reach, 2))
    shuffled = jax.jit(lambda moves: blur.shuffle(jnp.asarray(image), *jnp.moveaxis(moves, -1, 0)[:, None]))
    expected = image.copy()
    for i, h in enumerate(range(side - reach, reach, -1)):
        for j, w in enumerate(range(side - reach, reach, -1)):
            dx, dy = moves[i, j]
            expected[h, w], expected[h + dy, w + dx] = expected[h + dy, w + dx], expected[h, w]  # views: a copy, not an exchange
    np.testing.assert_array_equal(shuffled(moves), expected)
    moves[..., 0], moves[..., 1] = -1, 0  # every pixel copies its left neighbor, not yet visited
    np.testing.assert_array_equal(shuffled(moves)[reach + 1, reach + 1:-reach], image[reach + 1, reach:-reach - 1])


def test_borders():
    assert [filters.fold(np.arange(-4, 8), 4, mode).tolist() for mode in ("nearest", "reflect", "mirror")] == [
        [0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3], [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0], [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]]
    assert filters.fold(jnp.arange(-4, 8), 4, "mirror").tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]


def test_jpeg_of_partial_blocks():
    import io

    from PIL import Image
    levels = np.random.default_rng(1).integers(0, 256, (5, 5, 3), np.uint8).repeat(5, 0).repeat(5, 1)[:21, :19]
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=30)
    ours = jax.jit(lambda x: digital.jpeg_compression(x, None, 30))(levels / np.float32(255)) * 255
    assert np.abs(ours - np.asarray(Image.open(file), float)).max() <= 1


def test_frost_patch():
    sizes = np.array([[24, 20], [18, 30]], np.int32)
    pixels = np.zeros((2, 24, 30, 3), np.uint8)
    for i, (height, width) in enumerate(sizes):
        pixels[i, :height, :width] = 1 + i + 2 * np.arange(height)[:, None, None] + 4 * np.arange(width)[None, :, None]
    draw = jax.jit(jax.vmap(lambda key: weather.draw_patch(key, jnp.zeros((16, 16, 3)), 1, 0.4, {"pixels": pixels, "sizes": sizes})))
    patches = np.asarray(draw(jax.random.split(KEY, 200))) * 255
    corners = patches[:, 0, 0, 0].round().astype(int)
    expected = {1 + i + 2 * row + 4 * col for i, (height, width) in enumerate(sizes)
                for row in range(height - 16) for col in range(width - 16)}
    assert set(corners) <= expected and len(set(corners)) > len(expected) / 2
    np.testing.assert_allclose(patches - patches[:, :1, :1], np.broadcast_to(
        2 * np.arange(16)[:, None, None] + 4 * np.arange(16)[:, None], patches.shape), atol=1e-3)
    image, patch = photos()[0], patches[0] / 255
    np.testing.assert_allclose(weather.frost(image, patch, 0.8, 0.6), 0.8 * image + 0.6 * patch)


def test_frost_without_photos(monkeypatch):
    monkeypatch.setattr(weather.importlib.util, "find_spec", lambda name: None)
    weather.load_textures.cache_clear()
    with pytest.raises(ImportError, match=r"vmamba_jax\[corruptions\]"):
        corruptions.corrupt("frost", 1, photos(), KEY)


def brightness_classifier(images):
    """Class 1 where the mean of an image is above a half."""
    mean = images.mean((1, 2, 3))
    return jnp.stack([0.5 - mean, mean - 0.5], -1)


def test_accuracy():
    images = photos(11)
    labels, reports = (images.mean((1, 2, 3)) > 0.5).astype(int), []
    names, severities = ("brightness", "gaussian_noise", "contrast"), (1, 5)
    results = [evaluation.corruption_accuracy(
        brightness_classifier, (images, labels), key=KEY, corruptions=names, severities=severities, batch_size=size,
        mesh=parallel.data_mesh(jax.devices()[:devices]), progress=lambda *report: reports.append(report))
        for size, devices in ((11, 1), (4, 2))]
    assert results[0] == results[1] == json.loads(json.dumps(results[0]))
    rows = {(row["corruption"], row["severity"]): row for row in results[0]}
    assert list(rows) == [(name, severity) for name in names for severity in severities]
    expected = np.mean(np.asarray(brightness_classifier(corruptions.corrupt("brightness", 5, images, KEY)).argmax(1)) == labels)
    assert rows["brightness", 5]["accuracy"] == expected < 1 and rows["brightness", 5]["examples"] == 11
    assert reports[-1][:2] == (11, 11) and set(reports[-1][2]) == set(names)
    errors = evaluation.corruption_errors(results[0][::-1])
    assert errors["brightness"] == [1 - rows["brightness", 1]["accuracy"], 1 - rows["brightness", 5]["accuracy"]]


def test_accuracy_is_independent_of_other_corruptions():
    images = photos(9)
    few = {"key": KEY, "severities": (2,), "batch_size": 8}
    logits_fn = lambda x: x.reshape(len(x), -1)[:, :7] + 0.001 * x[:, 0, 0, 1:2]
    labels = np.asarray(logits_fn(images).argmax(1))
    alone = evaluation.corruption_accuracy(logits_fn, (images, labels), corruptions=("speckle_noise",), **few)
    among = evaluation.corruption_accuracy(logits_fn, (images, labels), corruptions=("gaussian_noise", "speckle_noise"), **few)
    assert among[1] == alone[0] and 0 < alone[0]["accuracy"] < 1
    with pytest.raises(ValueError, match="severity=7"):
        evaluation.corruption_accuracy(logits_fn, (images, labels), key=KEY, severities=(7,))
    with pytest.raises(ValueError, match="at least one of each"):
        evaluation.corruption_accuracy(logits_fn, (images, labels), key=KEY, corruptions=())


def test_every_corruption_and_severity_has_its_own_keys(monkeypatch):
    from vmamba_jax.evaluation.corruptions import accuracy
    monkeypatch.setattr(corruptions, "corrupt", lambda name, severity, images, keys, table: keys)
    batch = {"image": None, "index": jnp.arange(2)}
    keys = [jax.random.key_data(accuracy.corrupter.__wrapped__(name, severity, None)((), batch, KEY)).tolist()
            for name in corruptions.FUNCTIONS for severity in corruptions.SEVERITIES]
    assert len({tuple(key) for pair in keys for key in pair}) == 2 * 19 * 5


def test_mean_corruption_error():
    alexnet = {name: [error] * 5 for name, error in corruptions.ALEXNET.items()}
    assert corruptions.mean_corruption_error(alexnet) == pytest.approx(100)
    assert corruptions.mean_corruption_error(alexnet, corruptions.ALEXNET_CLEAN, relative=True) == pytest.approx(100)
    half = {name: [0, 0.25 * error, 0.5 * error, 0.75 * error, error] for name, error in corruptions.ALEXNET.items()}
    assert corruptions.mean_corruption_error(half) == pytest.approx(50)
    assert corruptions.mean_error(half) == pytest.approx(np.mean(list(corruptions.ALEXNET.values())) / 2)
    assert corruptions.mean_error({"fog": [0, 0, 0, 0, 1], "spatter": [0.4] * 5}) == pytest.approx(0.3)
    for errors, message in (({"fog": [0] * 5}, "lack gaussian_noise"), (half | {"spatter": [0] * 5}, "have spatter"),
                            ({"fog": [0] * 4}, "4 entries"),
                            ({"mist": [0] * 5}, "mist"), (half | {"fog": [0, 0, 0, 0, 1.2]}, "1.2"), ({}, "errors={}")):
        with pytest.raises(ValueError, match=message):
            corruptions.mean_corruption_error(errors)
    with pytest.raises(ValueError, match="clean_error=None"):
        corruptions.mean_corruption_error(half, relative=True)


def test_no_images_and_images_that_are_not_finite():
    images = jnp.zeros((2, 16, 16, 3))
    for name in ("fog", "gaussian_noise"):
        assert corruptions.corrupt(name, 1, images[:0], KEY).shape == (0, 16, 16, 3)
        with pytest.raises(ValueError, match=r"images=\[nan, nan\]"):
            corruptions.corrupt(name, 1, images.at[1, 0].set(jnp.nan), KEY)
