"""Transforms on the host against timm 0.4.12 and torchvision on fixed draws (tests/golden/image_recipe.npz), and in distribution."""
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from vmamba_jax import data
from vmamba_jax.data import transforms
from vmamba_jax.data.decoding.images import FILTERS, Decoder
from vmamba_jax.data.transforms import color_jitter, operations
from vmamba_jax.data.transforms.crops import resized_crop_box

GRAY = (124, 116, 104)


class Replay:
    """A generator that gives recorded uniform draws one after another."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def uniform(self, low, high):
        return low + (high - low) * next(self.draws)

    def integers(self, n):
        return int(next(self.draws) * n)


@pytest.fixture(scope="session")
def recipe(golden):
    return golden("image_recipe")


def test_operations_at_every_level(recipe):
    photo, seen = Image.fromarray(recipe["photo"]), set()
    for (name, increasing, level, sign, resample), expected in zip(json.loads(str(recipe["operation_cases"])), recipe["operations"], strict=True):
        y = operations.apply(name, photo, level, sign, increasing=bool(increasing), resample=FILTERS[resample], fill=GRAY)
        np.testing.assert_array_equal(np.asarray(y), expected, err_msg=f"{name} inc{increasing} m{level} {sign} {resample}")
        seen.add(name)
    assert seen == set(operations.OPERATIONS) and len(seen) == 15


def test_operations_on_grey_photos(recipe):
    photo = Image.fromarray(recipe["photo"]).convert("L")
    for name in operations.OPERATIONS:
        y = operations.apply(name, photo, 9.0, increasing=True, fill=115)
        assert y.mode == "L" and y.size == photo.size


@pytest.mark.parametrize("w, h", [(50, 37), (500, 100), (80, 400)])
def test_crop_boxes_on_recorded_draws(recipe, w, h):
    boxes = [resized_crop_box(w, h, Replay(row)) for row in recipe[f"crop_{w}x{h}_draws"]]
    np.testing.assert_array_equal(boxes, recipe[f"crop_{w}x{h}_boxes"])


def test_crop_boxes_in_distribution(recipe):
    rng = np.random.default_rng(0)
    found, expected = (np.array(x, float) for x in ([resized_crop_box(500, 375, rng) for _ in range(3000)], recipe["crop_sample"]))
    for statistic in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 2] / b[:, 3]):
        assert stats.ks_2samp(statistic(found), statistic(expected)).pvalue > 1e-3


def test_resized_crop_and_color_changes(recipe):
    photo = Image.fromarray(recipe["photo"])
    left, top, w, h = recipe["crop_box"].tolist()

    class Fixed(Replay):
        def random(self):
            return 1.0
    area, ratio = w * h / (36 * 32), np.log(w / h)
    draws = [(area - 0.08) / 0.92, (ratio - np.log(3 / 4)) / np.log(16 / 9), (top + 0.5) / (32 - h + 1), (left + 0.5) / (36 - w + 1)]
    np.testing.assert_array_equal(transforms.Train(28)(photo, Fixed(draws)), recipe["crop_resized"])
    for name, factor in (("brightness", 1.3), ("contrast", 0.7), ("saturation", 1.35), ("hue", -0.2)):
        np.testing.assert_array_equal(color_jitter.adjust(name, photo, factor), recipe[f"jitter_{name}"], err_msg=name)


def test_rand_augment_draws():
    """Which operations come, how often, at which levels and signs: counted by putting a recorder in their place."""
    augment = transforms.parse("rand-m9-mstd0.5-inc1", fill=GRAY)
    calls, photo, rng = [], Image.new("RGB", (4, 4)), np.random.default_rng(0)

    def record(name, photo, level, sign, *, increasing, resample, fill):
        calls.append((name, level, sign, resample))
        assert increasing and fill == GRAY
        return photo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "apply", record)
        for _ in range(3000):
            augment(photo, rng)
    names, levels, signs, filters = zip(*calls, strict=True)
    assert abs(len(calls) / 6000 - 0.5) < 0.02
    counts = np.array([names.count(name) for name in operations.OPERATIONS])
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(np.array(levels)[np.array(levels) < 10], stats.truncnorm(-18, 2, 9, 0.5).cdf).pvalue > 1e-3
    assert max(levels) == 10 and abs(np.mean(np.array(levels) == 10) - stats.norm.sf(2)) < 0.012 and abs(np.mean(signs)) < 0.06
    assert set(filters) == {FILTERS["bilinear"], FILTERS["bicubic"]}


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_rand_augment_probability(monkeypatch, probability):
    calls, augment = [], transforms.RandAugment(layers=4, probability=probability)
    monkeypatch.setattr(operations, "apply", lambda name, photo, *_, **options: calls.append(name) or photo)
    for seed in range(500):
        augment(Image.new("RGB", (4, 4)), np.random.default_rng(seed))
    assert abs(len(calls) / 2000 - probability) < 0.05


def test_color_jitter_factors(monkeypatch):
    """Factors are uniform on [max(0, 1 - x), 1 + x], the hue's on [-x, x], and the order varies."""
    calls, jitter = [], transforms.ColorJitter(brightness=0.4, contrast=1.5, hue=0.1)
    monkeypatch.setattr(color_jitter, "adjust", lambda name, photo, factor: calls.append((name, factor)) or photo)
    for seed in range(500):
        jitter(Image.new("RGB", (4, 4)), np.random.default_rng(seed))
    assert {calls[i][0] for i in range(0, 1500, 3)} == {"brightness", "contrast", "hue"} and len(calls) == 1500
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.0, 2.5), ("hue", -0.1, 0.1)):
        factors = [factor for found, factor in calls if found == name]
        assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_uniform_levels():
    augment = transforms.parse("rand-m6-n3-p1-mstd101")
    levels = [augment._level(np.random.default_rng(i)) for i in range(1000)]
    assert stats.kstest(levels, stats.uniform(0, 6).cdf).pvalue > 1e-3
    assert augment.layers == 3 and augment.probability == 1


@pytest.mark.parametrize("text, fields", [
    ("rand", {}), ("rand-m9-mstd0.5-inc1", {"magnitude": 9.0, "magnitude_std": 0.5, "increasing": True}),
    ("rand-inc0-n3-m5.5-p0.25", {"layers": 3, "magnitude": 5.5, "probability": 0.25}), ("rand-m15", {"magnitude": 15.0})])
def test_rand_augment_strings(text, fields):
    assert transforms.parse(text) == transforms.RandAugment(**fields)


@pytest.mark.parametrize("text, message", [
    ("", "expected 'rand' first, got ''"), ("augmix-m3", "expected 'rand' first, got 'augmix'"), ("rand-x3", "part 'x3' is unknown; expected some"),
    ("rand-m", "part 'm' is unknown"), ("rand--m9", "part '' is unknown"), ("rand-m9-m8", "expected part 'm' once"), ("rand-m-9", "part 'm' is"),
    ("rand-n2.5", "expected an integer in part 'n2.5'"), ("rand-inc2", "increasing=2: expected one of"), ("rand-p1.5", "probability=1.5: .*<= 1"),
    ("rand-n0", "layers=0: expected an integer >= 1"), ("rand-m9 ", "part 'm9 '")])
def test_wrong_rand_augment_strings(text, message):
    with pytest.raises(ValueError, match=message):
        transforms.parse(text)


@pytest.mark.parametrize("name, options", [
    ("train", {"size": 24}), ("train", {"size": 24, "rand_augment": "rand-m9-n4-mstd0.5-inc1-p1"}), ("train", {"size": 9, "color_jitter": 0.4}),
    ("train", {"size": 9, "color_jitter": [0.4, 0.4, 0.4, 0.1], "scale": [0.5, 1.0], "fill": [0, 0, 0], "interpolation": "random"}), ("simple_crop", {"size": 20}),
    ("evaluation", {"size": 20, "resize": 24})])
def test_transforms_are_pure_and_pickle(recipe, name, options):
    transform = transforms.create(name, **options)
    for image in (recipe["photo"], recipe["photo"][..., :1], Image.fromarray(recipe["photo"]).convert("RGBA")):
        x = transform(image, np.random.default_rng(5))
        channels = image.shape[-1] if isinstance(image, np.ndarray) else 3
        assert x.dtype == np.uint8 and x.shape == (options["size"], options["size"], channels)
        again = pickle.loads(pickle.dumps(transform))
        assert again == transform and hash(again) == hash(transform)
        np.testing.assert_array_equal(again(image, np.random.default_rng(5)), x)
    others = [transform(recipe["photo"], np.random.default_rng(i)).tobytes() for i in range(8)]
    assert (len(set(others)) == 1) == (name == "evaluation")


def test_flips_are_half_of_the_photos(recipe):
    mirror = transforms.create("simple_crop", size=32, pad=0)
    square = recipe["photo"][:, :32]
    flipped = [(mirror(square, np.random.default_rng(i)) == square[:, ::-1]).all() for i in range(300)]
    assert abs(np.mean(flipped) - 0.5) < 0.1
    always = transforms.create("train", size=24, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0)
    never = transforms.create("train", size=24, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    np.testing.assert_array_equal(always(square, np.random.default_rng(0)), never(square, np.random.default_rng(0))[:, ::-1])


def test_simple_crop(recipe):
    x = recipe["photo"]  # 32 x 36: the short side has the size already
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    crop, places = transforms.create("simple_crop", size=32, pad=2, flip=0.0), set()
    for i in range(60):
        y = crop(x, np.random.default_rng(i))
        places.add(next((a, b) for a in range(5) for b in range(9) if (padded[a:a + 32, b:b + 32] == y).all()))
    assert {a for a, _ in places} == set(range(5)) and {b for _, b in places} == set(range(9))


def test_evaluation_is_the_decoders(recipe):
    expected = Decoder(20, 24)(recipe["photo"], "photo")
    np.testing.assert_array_equal(transforms.create("evaluation", size=20, resize=24)(recipe["photo"], None), expected)


@pytest.mark.parametrize("call, error, message", [
    (lambda: transforms.create("crop"), ValueError, "transform='crop': expected one of 'train', 'simple_crop', 'evaluation'"),
    (lambda: transforms.create("train", sizes=3), TypeError, "sizes=3: expected an option of transform 'train', one of 'size', "),
    (lambda: transforms.create("train", size=0), ValueError, "size=0: expected an integer >= 1"),
    (lambda: transforms.create("train", scale=(0.5, 0.2)), ValueError, r"scale=\(0.5, 0.2\): expected an ascending pair"),
    (lambda: transforms.create("train", scale=0.5), TypeError, "scale=0.5: expected a pair"),
    (lambda: transforms.create("train", ratio=(0.0, 2.0)), ValueError, r"ratio\[0\]=0.0: expected a finite number > 0"),
    (lambda: transforms.create("train", interpolation="cubic"), ValueError, "interpolation='cubic': expected one of"),
    (lambda: transforms.create("train", flip=1.5), ValueError, "flip=1.5: expected a finite number >= 0 and <= 1"),
    (lambda: transforms.create("train", rand_augment="rand-q1"), ValueError, "part 'q1'"),
    (lambda: transforms.create("train", rand_augment="rand-m9", color_jitter=0.4), ValueError, "color_jitter=0.4: expected 0 with rand_augment"),
    (lambda: transforms.create("train", color_jitter=(0.4, 0.4)), ValueError, "three or four"),
    (lambda: transforms.create("train", color_jitter=-1.0), ValueError, "brightness=-1.0: expected"),
    (lambda: transforms.create("train", rand_augment="rand-m9", fill=(1, 2)), ValueError, r"fill=\(1, 2\): expected three integers"),
    (lambda: transforms.create("simple_crop", size=4), ValueError, "pad=4: expected less than size=4"),
    (lambda: transforms.create("evaluation", size=8, resize=4), ValueError, "resize=4: expected an integer >= 8"),
    (lambda: transforms.create("train", size=8)(np.zeros((4, 4, 3)), np.random.default_rng(0)), TypeError, r"image=float64 \(4, 4, 3\): expected .*uint8 array"),
    (lambda: transforms.create("train", size=8)("photo.jpg", np.random.default_rng(0)), TypeError, "image=str: expected"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_package_offers_them():
    assert data.transforms is transforms and transforms.names() == ["train", "simple_crop", "evaluation"]
