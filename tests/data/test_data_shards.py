"""Sharded sets: the same examples from three formats and from URLs, their order on one and two hosts, and every kind of damage by name."""
import os
import pickle

import numpy as np
import pytest

from tests.helpers import s3_server, shard_files
from vmamba_jax import data
from vmamba_jax.core import crc32c
from vmamba_jax.data.shards import examples, places

FORMATS = ("webdataset", "tfrecord", "array_record")
FOUND = shard_files.pictures()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """{format: folder of three shards}."""
    root = tmp_path_factory.mktemp("shards")
    for form in FORMATS:
        shard_files.write(form, root / form, FOUND)
    return {form: root / form for form in FORMATS}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vmamba_jax"


def same(source):
    images, labels = source.gather(np.arange(len(source)))
    return np.array_equal(images, np.stack([image for image, _ in FOUND])) and labels.tolist() == [label for _, label in FOUND] == source.labels.tolist()


@pytest.mark.parametrize("form", FORMATS)
def test_examples_order_and_identity(form, sets):
    source = data.load(form, "train", sets[form])
    assert same(source) and source.classes == ("0", "1", "2") and source.name == form
    again = data.load(form, "train", sets[form], classes=["a", "b", "c"])  # by the indexes written beside the shards
    assert len(list(sets[form].glob("*.index.npz"))) == 3 and same(pickle.loads(pickle.dumps(again)))
    assert source.fingerprint != again.fingerprint == data.load(form, "train", sets[form], classes=["a", "b", "c"]).fingerprint
    whole = data.Pipeline(source, 4, seed=5)
    parts = [data.Pipeline(source, 4, seed=5, shard=(i, 2)) for i in range(2)]
    for t in (0, 2, 3, 7):
        assert np.array_equal(whole[t]["index"], np.concatenate([part[t]["index"] for part in parts]))
        assert np.array_equal(whole[t]["image"], np.concatenate([part[t]["image"] for part in parts]))
    assert sorted(i for t in range(3) for i in whole[t]["index"]) == list(range(12))
    stream = whole.iterate(2)
    next(stream)
    resumed = whole.iterate()
    resumed.set_state(stream.get_state())
    assert np.array_equal(next(resumed)["index"], whole[3]["index"])


def test_shards_on_servers(sets, tmp_path, cache, monkeypatch):
    """S3, HTTP, file and memory URLs; the index is written beside shards in a bucket, and read from there by another host."""
    with s3_server.serve("bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for form in FORMATS:
            for path in sets[form].glob("*"):
                if not path.name.endswith(".npz"):
                    server.buckets["bucket"][f"{form}/{path.name}"] = path.read_bytes()
        for form in FORMATS:
            assert same(data.load(form, "train", f"s3://bucket/{form}"))
        assert sum(key.endswith(".index.npz") for key in server.buckets["bucket"]) == 6  # ArrayRecord shards are read from the cache folder
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other host"))
        server.log.clear()
        source = data.load("webdataset", "train", f"{server.url}/bucket/webdataset", files="train-{000..002}.tar")
        assert same(source) and not [key for _, key, status in server.log if key.endswith(".index.npz") and status != 200]
        with pytest.raises(data.DataNotFoundError, match=r"train-003\.tar: expected a file"):
            data.load("webdataset", "train", f"{server.url}/bucket/webdataset", files="train-{000..003}.tar")
        with pytest.raises(OSError, match="s3://nowhere/set: expected a bucket .* NoSuchBucket"):
            data.load("webdataset", "train", "s3://nowhere/set")
    assert same(data.load("tfrecord", "train", f"file://{sets['tfrecord']}"))
    import fsspec
    memory = fsspec.filesystem("memory")
    for path in sets["webdataset"].glob("*.tar"):
        memory.pipe_file(f"/set/{path.name}", path.read_bytes())
    assert same(data.load("webdataset", "train", "memory://set"))


def test_size_without_a_stated_one():
    """By bisection, where a server's error has no total size."""
    from vmamba_jax.core.objects import Objects
    with s3_server.serve("bucket") as server:
        server.buckets["bucket"] = {f"{n}": b"x" * n for n in (0, 1, 2, 777, 1024)}
        store = Objects(f"{server.url}/bucket")
        store.read = lambda key, start, stop, read=store.read: read(key, start, stop) if stop < 1 << 60 else (_ for _ in ()).throw(EOFError("beyond"))
        assert [store.size(f"{n}") for n in (0, 1, 2, 777, 1024)] == [0, 1, 2, 777, 1024]


def test_labels_by_name_and_in_range(sets, tmp_path):
    root = sets["webdataset"]
    with pytest.raises(ValueError, match=r"train-000\.tar:'00002\.png': expected a label from 0 to 1, got 2"):
        data.load("webdataset", "train", root, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"train-000\.tar:'00000\.png': expected a label from 1 to 3, got 0"):
        data.load("webdataset", "train", root, classes=["a", "b", "c"], first_label=1)
    assert same(data.load("webdataset", "train", root, label_key="json:label", first_label=1))
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    assert data.load("webdataset", "train", root, classes=str(tmp_path / "names.txt")).classes == ("x", "y", "z")
    with pytest.raises(data.DataNotFoundError, match="expected shards, got none. A set 'tfrecord' has shards"):
        data.load("tfrecord", "test", sets["tfrecord"])


BAD_TARS = {
    "two images": ([("a.png", b"1"), ("a.jpg", b"2"), ("a.cls", b"0")], r"bad\.tar:'a\.jpg': expected one image in a sample"),
    "no label": ([("a.png", b"1"), ("b.png", b"1"), ("b.cls", b"0")], r"bad\.tar:'a': expected a label 'cls'"),
    "no image": ([("a.cls", b"1")], r"bad\.tar:'a': expected an image"),
    "label of text": ([("a.png", b"1"), ("a.cls", b"dog")], r"bad\.tar:'a\.cls': expected an integer from 0, got b'dog'"),
    "negative label": ([("a.png", b"1"), ("a.cls", b"-1")], r"bad\.tar:'a\.cls': expected an integer from 0"),
    "a key twice": ([("a.png", b"1"), ("a.cls", b"0"), ("b.png", b"1"), ("b.cls", b"0"), ("a.png", b"1"), ("a.cls", b"0")], r"bad\.tar:'a\.png': .* each key once"),
    "hostile name": ([("../\n\x1b[2J.png", b"1")], r"bad\.tar:'\.\./\\n\\x1b\[2J': expected a label"),
}


@pytest.mark.parametrize("case", BAD_TARS)
def test_samples_that_are_not_whole(case, tmp_path):
    members, message = BAD_TARS[case]
    shard_files.tar(tmp_path / "bad.tar", members)
    with pytest.raises(ValueError, match=message):
        data.load("webdataset", "train", tmp_path, files="bad.tar")


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_shards(form, sets, tmp_path):
    path = shard_files.write(form, tmp_path, FOUND, shards=1)[0]
    raw = path.read_bytes()
    for n in (len(raw) // 2 - 5, len(raw) - 1 if form != "webdataset" else len(raw) // 3, 10):
        path.write_bytes(raw[:n])
        with pytest.raises(ValueError, match=f"{path.name}.*(truncated|Corrupted|64KB|Invalid)"):
            data.load(form, "train", tmp_path)
    first = shard_files.write(form, tmp_path / "part", FOUND)[0]
    if form != "webdataset":  # the names state the number of shards
        first.unlink()
        with pytest.raises(data.DataNotFoundError, match="expected 3 shards, got 2"):
            data.load(form, "train", tmp_path / "part")


def test_a_shard_changed_after_its_index(tmp_path):
    """The header and the checksums beside a record differ from the index: a bad image by name, never other pixels."""
    for form in ("webdataset", "tfrecord"):
        path = shard_files.write(form, tmp_path / form, FOUND, shards=1)[0]
        source, stamp = data.load(form, "train", tmp_path / form), path.stat().st_mtime_ns
        raw = bytearray(path.read_bytes())
        offset = int(source.indexes[0].offsets[3])
        raw[offset - (300 if form == "webdataset" else -9)] ^= 1
        path.write_bytes(raw)
        os.utime(path, ns=(stamp, stamp))
        assert data.load(form, "train", tmp_path / form).gather([2])[1].tolist() == [2]
        with pytest.raises(data.BadImageError, match=f"{path.name}:'(00003.png|record 3)': .*expected"):
            data.load(form, "train", tmp_path / form).gather([3])
        os.utime(path, ns=(stamp + 10**10, stamp + 10**10))  # newer than the index, which is made anew
        with pytest.raises(ValueError, match=f"{path.name}"):
            data.load(form, "train", tmp_path / form)


def test_an_index_that_does_not_fit_is_made_anew(sets, tmp_path):
    path = shard_files.write("webdataset", tmp_path, FOUND, shards=1)[0]
    index = path.with_name(path.name + ".index.npz")
    data.load("webdataset", "train", tmp_path)
    for content in (b"", b"PK\3\4" + bytes(100), index.read_bytes()[:-30]):
        index.write_bytes(content)
        assert same(data.load("webdataset", "train", tmp_path))


def test_messages_and_checksums():
    """Values from RFC 3720; packed and unpacked integers; what is no message."""
    assert crc32c.crc32c(b"123456789") == 0xE3069283 and crc32c.crc32c(bytes(32)) == 0x8A9136AA and crc32c.crc32c(b"") == 0
    long = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    state = 0xFFFFFFFF
    for byte in long:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (crc32c.POLYNOMIAL if state & 1 else 0)
    assert crc32c.crc32c(long) == state ^ 0xFFFFFFFF
    message = examples.serialize({"image": b"\0\1", "label": [3, 300, -1], "name": "x"})
    assert examples.parse(message, ("image", "label")) == {"image": [b"\0\1"], "label": [3, 300, -1]}
    unpacked = bytes.fromhex("0a110a0f0a056c6162656c12061a0408030807")
    assert examples.parse(unpacked, ("label",)) == {"label": [3, 7]}
    for broken in (message[:-1], b"\x0a\xff\xff\xff\xff\xff", b"\xff" * 20, b"\x0b"):
        with pytest.raises(ValueError, match="expected|ends after|does not end"):
            examples.parse(broken, ("label",))
    assert places._expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]


@pytest.mark.slow
def test_rates(capsys):
    from experiments import shard_rates
    rows = shard_rates.measure(50)
    assert [row["format"] for row in rows[::3]] == list(FORMATS) and all(row["images_per_second"] > 1 for row in rows)


def test_a_shard_replaced_by_another_of_its_size(tmp_path):
    """A whole shard whose records differ from the index in size or label, with the old times: an error, never another label."""
    path = tmp_path / "train.tar"
    shard_files.tar(path, [("a.png", b"x" * 10), ("a.cls", b"0")])
    source, stamp = data.load("webdataset", "train", tmp_path), path.stat().st_mtime_ns
    shard_files.tar(path, [("a.png", b"x" * 20), ("a.cls", b"0")])
    os.utime(path, ns=(stamp, stamp))
    with pytest.raises(data.BadImageError, match=r"train\.tar:'a\.png': expected a member of 10 bytes at 512, as the index says; the shard was changed"):
        data.load("webdataset", "train", tmp_path)._encoded((0, 0))
    for form, name in (("tfrecord", "train-00000-of-00001"), ("array_record", "set-train.array_record-00000-of-00001")):
        shard_files.write(form, tmp_path / form, FOUND, shards=1)
        path = tmp_path / form / name
        source, stamp = data.load(form, "train", tmp_path / form), path.stat().st_mtime_ns
        shard_files.write(form, tmp_path / form, [(image, (label + 1) % 3) for image, label in FOUND], shards=1)
        os.utime(path, ns=(stamp, stamp))
        with pytest.raises(data.BadImageError, match="label 0, as the index says, got .*1; the shard was changed"):
            source._encoded((0, 0))
