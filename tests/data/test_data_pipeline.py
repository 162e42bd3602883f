"""The Grain pipeline: determinism over threads and workers, resuming, shards, transforms, and images that do not decode."""
import json
import logging
import os
import pathlib
import re
import subprocess
import sys

import grain
import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data

N = 23


def write_photos(folder, n=N, classes=3, end=".jpg"):
    for i in range(n):
        path = folder / f"c{i % classes}" / f"{i:03d}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        x = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(x).resize((20 + i % 5, 16)).save(path)


def random_crop(image, rng):
    """An 8x8 crop at a random position, with random values in its corner that identify the generator."""
    left, top = rng.integers(0, image.width - 8), rng.integers(0, image.height - 8)
    x = np.asarray(image.crop((left, top, left + 8, top + 8))).copy()
    x[0, 0] = rng.integers(0, 256, 3)
    return x


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    write_photos(root / "train")
    return root


@pytest.fixture(scope="module")
def source(root):
    return data.load("folder", "train", root)


def pipeline(source, batch_size=4, **options):
    return data.Pipeline(source, batch_size, **{"seed": 3, "transform": random_crop} | options)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_batches_are_those_of_batches(root):
    source = data.load("folder", "train", root, size=8)
    ours, plain = data.Pipeline(source, 4, seed=3), data.Batches(source, 4, seed=3)
    assert ours.steps_per_epoch == plain.steps_per_epoch == 5
    for t in (0, 4, 7):
        assert same(ours[t], plain[t])
    short = data.Pipeline(source, 4, shuffle=False, drop_remainder=False)
    assert [len(batch["label"]) for batch in short.iterate(0, short.steps_per_epoch)] == [4, 4, 4, 4, 4, 3]


@pytest.mark.parametrize("threads, depth", [(1, 0), (1, 2), (3, 1), (8, 4)])
def test_threads_and_depth_change_nothing(source, threads, depth):
    wanted = pipeline(source, threads=1)
    stream = pipeline(source, threads=threads).iterate(2, 9, depth=depth)
    seen = list(stream)
    assert len(seen) == 7 and all(same(batch, wanted[t]) for t, batch in enumerate(seen, 2))
    assert [batch["image"].dtype for batch in seen[:1]] == [np.float32] and seen[0]["image"].max() <= 1


def test_generator_per_example_and_epoch(source):
    p = pipeline(source, 1)
    corners = {(epoch, batch["index"].item()): tuple(batch["image"][0, 0, 0]) for epoch in range(2)
               for batch in p.iterate(epoch * N, (epoch + 1) * N)}
    assert len(corners) == 2 * N and len(set(corners.values())) == 2 * N
    for size in (4, 7):  # independent of the batch
        batch = pipeline(source, size)[0]
        assert all(tuple(x[0, 0]) == corners[0, i] for x, i in zip(batch["image"], batch["index"].tolist(), strict=True))
    assert not np.array_equal(pipeline(source, seed=4)[0]["image"], pipeline(source)[0]["image"])


def test_resume_within_an_epoch(source):
    unbroken = pipeline(source).iterate(0, 12)
    first = [next(unbroken) for _ in range(3)]
    state = json.loads(json.dumps(unbroken.get_state()))
    rest = list(unbroken)
    by_state = pipeline(source).iterate(0, 12)
    next(by_state)
    by_state.set_state(state)
    by_step = pipeline(source).iterate(state["step"], 12)
    again = list(zip(by_state, by_step, strict=True))
    assert len(first) == 3 and len(rest) == len(again) == 9
    assert all(same(x, a) and same(x, b) for x, (a, b) in zip(rest, again, strict=True))
    with pytest.raises(ValueError, match="of another pipeline: seed was 3, is 4; batch_size was 4, is 5"):
        pipeline(source, 5, seed=4).iterate().set_state(state)
    with pytest.raises(ValueError, match="state={'step': 3}: expected a dict of step, bad, order"):
        pipeline(source).iterate().set_state({"step": 3})


def test_grains_own_state_agrees(source):
    p = pipeline(source)
    iterator = iter(p.dataset())
    for _ in range(6):
        next(iterator)
    assert isinstance(p.dataset(), grain.IterDataset)
    other = iter(pipeline(source).dataset())
    other.set_state(iterator.get_state())
    batch, bad = next(other)
    assert not bad and batch["image"].dtype == np.uint8 and np.array_equal(batch["index"], p.indices(6))


def test_pipeline_shards(source):
    whole, parts = pipeline(source, 6), [pipeline(source, 6, shard=(i, 3)) for i in range(3)]
    for t in range(5):
        batches = [part[t] for part in parts]
        joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        assert same(whole[t], joined)


def test_uint8_images_on_device(source):
    raw = pipeline(source, uint8=True)
    assert raw[0]["image"].dtype == np.uint8
    arrays, index = data.on_device(raw[2])
    assert isinstance(index, np.ndarray) and not isinstance(arrays["image"], np.ndarray)
    assert same({name: np.asarray(x) for name, x in arrays.items()} | {"index": index}, pipeline(source)[2])
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    floats, index = data.on_device({"image": every})
    assert index is None and np.array_equal(floats["image"], np.divide(every, np.float32(255), dtype=np.float32))


def test_arrays_and_subsets_serve_too(source):
    arrays = data.Arrays(np.arange(10 * 12, dtype=np.uint8).reshape(10, 2, 2, 3), np.arange(10))
    p = data.Pipeline(arrays, 5, transform=lambda image, rng: image[::-1])
    batch = p[0]
    assert np.array_equal(batch["image"], arrays.images[batch["index"]][:, ::-1].astype(np.float32) / 255)
    part = data.subset(source, [7, 2, 9])
    batch = pipeline(part, 3)[0]
    assert (batch["label"] == source.labels[[7, 2, 9]][batch["index"]]).all()


def damaged(root, *places):
    """A copy of the photos in which some (positions in a source of them) are cut short; the source, and the names."""
    write_photos(root / "train")
    source = data.load("folder", "train", root)
    paths = [root / "train" / source.files[i] for i in places]
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    return data.load("folder", "train", root), [str(path) for path in paths]


def test_bad_images_are_replaced(tmp_path, caplog):
    source, names = damaged(tmp_path, 5, 6, N - 1)
    good = pipeline(source, N, shuffle=False, max_bad=3, threads=4)
    with caplog.at_level(logging.WARNING, "vmamba_jax.data"):
        first, second = good[0], good[1]
    assert first["index"].tolist() == [0, 1, 2, 3, 4, 7, 7, *range(7, N - 1), 0]
    assert (first["label"] == source.labels[first["index"]]).all() and np.array_equal(first["image"][5], first["image"][7])
    assert list(good.bad) == [5, 6, N - 1] and all(name in message for name, message in zip(names, good.bad.values(), strict=True))
    assert len(caplog.records) == 3 and np.array_equal(second["index"], first["index"])
    strict = pipeline(source, N, shuffle=False, max_bad=2)
    with pytest.raises(data.BadImagesError, match="max_bad=2: expected at most that many images that do not decode, got 3") as caught:
        strict[0]
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(data.BadImageError, match="expected an image file"):
        data.Batches(source, N)[0]


def test_state_has_bad_images(tmp_path):
    source, _ = damaged(tmp_path, 0, 9)
    stream = pipeline(source, 6, shuffle=False).iterate(0, 3, depth=1)
    next(stream)
    assert list(stream.pipeline.bad) == [0]
    resumed = pipeline(source, 6, shuffle=False).iterate(0, 3)
    resumed.set_state(json.loads(json.dumps(stream.get_state())))
    assert list(resumed.pipeline.bad) == [0]
    list(resumed)
    assert list(resumed.pipeline.bad) == [0, 9]


def test_bad_images_only(tmp_path):
    source, _ = damaged(tmp_path, *range(N))
    for allowed in (3, 1000):
        with pytest.raises(data.BadImagesError, match="max_bad=.*images that do not decode"):
            pipeline(source, max_bad=allowed)[0]


def test_transform_errors_are_raised(source):
    def broken(image, rng):
        raise ValueError("transform is broken")
    with pytest.raises(ValueError, match="transform is broken"):
        next(pipeline(source, transform=broken).iterate())


@pytest.mark.parametrize("options, error, message", [
    ({"transform": 3}, TypeError, "transform=3: expected a function"), ({"workers": -1}, ValueError, "workers"), ({"threads": 0}, ValueError, "threads"),
    ({"max_bad": 1.5}, TypeError, "max_bad"), ({"shard": (2, 2)}, ValueError, "shard"), ({"batch_size": 99}, ValueError, "do not fill"),
])
def test_bad_pipelines(source, options, error, message):
    with pytest.raises(error, match=message):
        pipeline(source, **options)


@pytest.mark.parametrize("transform, error, message", [
    (lambda image, rng: np.zeros((8, 8, 3), np.float32), TypeError, r"transform=.*expected it to return uint8 \(H, W, C\), got shape \(8, 8, 3\) of float32"),
    (lambda image, rng: np.zeros((8, rng.integers(1, 99), 3), np.uint8), ValueError, "in one batch: expected one shape"),
    (None, ValueError, "in one batch: expected one shape"),
])
def test_bad_transforms(source, transform, error, message):
    with pytest.raises(error, match=message):
        pipeline(source, transform=transform)[0]


def test_the_page_on_data_runs():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text()
    scope = {}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "data.Pipeline(" in block), scope)
    assert scope["batch"]["image"].shape == (64, 8, 8, 1) and scope["stream"].step == 4


PROGRAM = """
import json, sys
import numpy as np
from vmamba_jax import data

def transform(image, rng):
    return np.roll(np.asarray(image.crop((0, 0, 16, 16))), rng.integers(16), 0)

if __name__ == "__main__":
    source, seen = data.load("folder", "train", sys.argv[1]), []
    stream = data.Pipeline(source, 4, seed=3, transform=transform, workers=int(sys.argv[2])).iterate(1)
    for _ in range(4):
        batch = next(stream)
        seen.append([batch["index"].tolist(), batch["image"].sum().item()])
    print(json.dumps([seen, stream.get_state()]))
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_change_nothing(root, source, tmp_path, workers):
    """The same batches with and without workers, a state that resumes without them, and no output from workers alive at exit."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, tmp_path / "program.py", root, str(workers)], capture_output=True, text=True, timeout=400,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    names = {}
    exec(PROGRAM, names)
    here = data.Pipeline(source, 4, seed=3, transform=names["transform"])
    seen, state = json.loads(done.stdout)
    assert seen == [[here[t]["index"].tolist(), here[t]["image"].sum().item()] for t in range(1, 5)]
    stream = here.iterate()
    stream.set_state(state)
    assert stream.step == 5 and same(next(stream), here[5])
