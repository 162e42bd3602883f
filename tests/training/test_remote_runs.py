"""Runs in an object store: files, lock and checkpoints equal a local run's; a store that fails at any write leaves a run that resumes to the bit."""
import contextlib
import json
import pathlib
import subprocess
import sys
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import s3_server
from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy
from vmamba_jax import training
from vmamba_jax.core import files
from vmamba_jax.core.objects import StoreError
from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.core.saved_steps import objects
from vmamba_jax.core.saved_steps.remote import RemoteSteps
from vmamba_jax.training.run import remote_lock
from vmamba_jax.training.run.lock import one_run

ROOT = pathlib.Path(__file__).parent.parent.parent
URL, STEPS = "s3://bucket/some/run", 6
OPTIMIZER = training.optimizer.create("adamw", learning_rate=0.01)
CLASSIFIER = Classifier(Net("batch"))
STEP = training.objectives.standard(CLASSIFIER, OPTIMIZER, ema_decay=0.8)


@pytest.fixture
def server(monkeypatch):
    with s3_server.serve("bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(remote_lock, "PAUSE", 0.02)
        yield server


def run(folder, steps=STEPS, batches=None):
    state = training.create_state(CLASSIFIER, OPTIMIZER, jax.random.key(0), SHAPE, ema_decay=0.8)
    final = training.train(
        STEP, state, batches or Toy(), steps=steps, key=jax.random.key(1), workdir=folder,
        checkpoints=training.Checkpointing(every=2, best_metric="score", best_mode="min", config={"field": 1}),
        validation=training.Validation(lambda state, t: {"score": float(abs(state.params["Dense_0"]["kernel"]).sum())}, every=3),
        monitoring=training.Monitoring(log_every=1, progress=False))
    return list(map(np.asarray, jax.tree.leaves(final)))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """(folder of an uninterrupted local run, its final arrays)."""
    folder = tmp_path_factory.mktemp("local") / "run"
    return folder, run(folder)


def equal(ours, theirs):
    return len(ours) == len(theirs) and all(x.tobytes() == y.tobytes() for x, y in zip(ours, theirs, strict=True))


def test_a_run_and_its_readers(server, local):
    folder, final = local
    assert equal(run(URL), final)
    stored = server.buckets["bucket"]
    assert stored["some/run/metrics.jsonl"] == (folder / "metrics.jsonl").read_bytes() and "some/run/.lock" not in stored
    assert any(key.startswith("some/run/tensorboard/") for key in stored) and stored["some/run/timing.jsonl"]
    with training.Checkpoints(folder / "checkpoints", read_only=True) as ours, training.Checkpoints(f"{URL}/checkpoints", read_only=True) as theirs:
        assert ours.steps == theirs.steps and ours.best_step == theirs.best_step and theirs.config == {"field": 1}
        for step in ours.steps:
            assert ours.metrics(step) == theirs.metrics(step) and ours.extra(step) == theirs.extra(step)
            assert all(jax.tree.leaves(jax.tree.map(np.array_equal, ours.restore_variables(step, ema=True), theirs.restore_variables(step, ema=True))))
        assert theirs.restore_variables("best").keys() == ours.restore_variables("best").keys()
        with pytest.raises(FileNotFoundError, match="step=1: expected one of"):
            theirs.restore_variables(1)
        with pytest.raises(ValueError, match="read_only=True"):
            theirs.save(None)
    assert training.read_metrics(URL) == training.read_metrics(folder)
    puts = len([1 for method, *_ in server.log if method == "PUT"])
    assert equal(run(URL), final) and len([1 for method, *_ in server.log if method == "PUT"]) - puts < 12  # nothing is trained again


@pytest.mark.parametrize("n", [pytest.param(n, marks=[] if n in (3, 9) else pytest.mark.slow) for n in range(1, 17)])
def test_a_store_that_fails_at_any_write(n, server, local):
    """Every request after the n-th write is refused; once it answers again, the same call ends with the same arrays and lines."""
    wanted = (local[0] / "metrics.jsonl").read_bytes()
    left = [n]

    def before(method, key):
        left[0] -= method == "PUT"
        if left[0] < 0:
            server.access_key = "none"

    server.before, server.access_key = before, s3_server.KEY
    with contextlib.suppress(StoreError, training.SaveError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(URL)
        raise AssertionError(f"{n} writes sufficed")
    server.before, server.access_key = lambda *_: None, s3_server.KEY
    server.buckets["bucket"].pop("some/run/.lock", None)  # this process lives, so it would count as held
    assert equal(run(URL), local[1]), n
    assert server.buckets["bucket"]["some/run/metrics.jsonl"] == wanted, n
    keys = [key.removeprefix("some/run/checkpoints/") for key in server.buckets["bucket"] if "/checkpoints/" in key]
    steps = {key.split("/")[0] for key in keys if key.endswith("/manifest.json")}
    assert {key.split("/")[0] for key in keys} == steps | {"about.json"}, n  # nothing of unfinished saves is left


def test_damage_is_named_and_set_aside(server, local):
    run(URL)
    stored, folder = server.buckets["bucket"], f"{URL}/checkpoints"
    latest = max(int(key.split("/")[3]) for key in stored if key.endswith("manifest.json"))
    pack = next(key for key in stored if key.startswith(f"some/run/checkpoints/{latest}/") and key.endswith(".bin"))
    stored[pack] = stored[pack][:40] + bytes([stored[pack][40] ^ 1]) + stored[pack][41:]
    with pytest.raises(training.DamagedCheckpoint, match=f"step {latest}: checksums differ from the saved ones: "):
        training.restore_variables(folder, latest)
    with pytest.warns(RuntimeWarning, match=f"step {latest}: checksums differ.* is restored instead"):
        assert equal(run(URL), local[1])
    about = json.loads(stored["some/run/checkpoints/about.json"])
    assert f"step {latest}: checksums differ" in about["damaged"][0] and any(key.endswith(".damaged.json") for key in stored) and pack in stored
    del stored[next(key for key in stored if key.startswith(f"some/run/checkpoints/{latest}/") and key.endswith(".bin") and key != pack)]
    with pytest.warns(RuntimeWarning, match=r"its file \w+/0-0.bin is missing; set aside"):
        assert equal(run(URL), local[1])
    manifest = f"some/run/checkpoints/{latest}/manifest.json"
    stored[manifest] = stored[manifest].replace(b'"step": ', b'"step":  ').replace(b'"score"', b'"scorf"')
    with pytest.warns(RuntimeWarning, match="its manifest differs from the saved one; passed over"):
        training.Checkpoints(folder, read_only=True).close()


def test_lock(server, monkeypatch):
    """Created by one of two; a live one is respected, a dead or silent one replaced, a replaced one noticed."""
    path = run_folder(URL) / ".lock"
    won = []

    def race():
        with contextlib.suppress(training.Locked):
            won.append(remote_lock._acquire(path, remote_lock.__dict__["_owner"](b"{}") | {"host": "x"}, training.Locked))

    monkeypatch.setattr(remote_lock, "LEASE", 60.0)
    racers = [threading.Thread(target=race, daemon=True) for _ in range(4)]
    for racer in racers:
        racer.start()
    for _ in range(200):
        if won:
            break
        threading.Event().wait(0.01)
    assert len(won) == 1
    path.write_bytes(json.dumps({"host": "elsewhere", "process": 1, "since": "now", "renewals": 1}).encode())  # a sign of life
    for racer in racers:
        racer.join(5)
    assert len(won) == 1 and not any(racer.is_alive() for racer in racers)
    monkeypatch.setattr(remote_lock, "LEASE", 0.2)
    monkeypatch.setattr(remote_lock, "RENEWAL", 0.05)
    with one_run(URL), one_run(URL):  # a silent one, replaced; twice in one process
        first = path.read_bytes()
        threading.Event().wait(0.3)
        assert path.read_bytes() != first  # renewed
        remote_lock.check(run_folder(URL), training.Locked)
        path.write_bytes(b'{"host": "thief", "process": 7, "since": "then"}')
        threading.Event().wait(0.3)
        with pytest.raises(training.Locked, match="in use by process 7 on thief, since then, which took it over"):
            remote_lock.check(run_folder(URL), training.Locked)
    assert path.read_bytes().startswith(b'{"host": "thief"')  # not deleted by the one that lost it
    monkeypatch.setattr(remote_lock, "LEASE", 600.0)
    path.write_bytes(json.dumps({"host": remote_lock.socket.gethostname(), "process": 2 ** 22 + 1, "namespace": remote_lock._namespace()}).encode())
    with one_run(URL):  # its process has ended
        pass
    assert not path.is_file()


def test_failures_in_one_line(server):
    for url, words in (("s3://nowhere/run", "NoSuchBucket"), (URL, "InvalidAccessKeyId")):
        server.access_key = "another" if url == URL else s3_server.KEY
        with pytest.raises(StoreError, match=f"{url[:9]}.*expected a bucket or server that this process can reach and use, but .*{words}") as caught:
            run(url)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="path=https://host/run: expected a local path, gs://BUCKET/FOLDER"):
        run("https://host/run")
    with pytest.raises(ValueError, match="path=s3://bucket: expected a local path"):
        run_folder("s3://bucket")


def test_sharded_arrays_have_one_writer_each(server):
    """Parts of arrays over eight devices, replicated ones once, packs of bounded size; read as a whole, in bfloat16 too."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    n = len(jax.devices())
    place = lambda x, *spec: jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))
    tree = {"a": {"w": place(jnp.arange(n * 6, dtype=jnp.bfloat16).reshape(n, 6), "data")}, "b": place(jnp.arange(3.0)), "none": {}, "step": np.int32(4), "empty": np.zeros((0, 2))}
    found = objects.parts(tree, 0)
    assert sorted(name for name, *_ in found) == ["a/w"] * n + ["b", "empty", "step"]
    folder = run_folder("s3://bucket/steps")
    manifest = {"step": 4, "attempt": "x", "arrays": objects.shapes(tree), "extra": {}, "metrics": None, "parts": objects.write_parts(folder, 4, "x", 0, found)}
    objects.write_manifest(folder, manifest)
    again = objects.read_manifest(folder, 4)
    assert again["arrays"]["none"] is None and RemoteSteps("s3://bucket/steps")._saved(4)["none"] == {}
    for name, leaf in {"a/w": tree["a"]["w"], "b": tree["b"], "step": tree["step"], "empty": tree["empty"]}.items():
        array = objects.read_array(folder, again, name)
        assert array.dtype == leaf.dtype and np.array_equal(array, np.asarray(leaf)), name
    again["parts"] = [part for part in again["parts"] if part["start"] != [1, 0]] if n > 1 else again["parts"][1:]
    with pytest.raises(objects.Incomplete, match="a/w: its parts have"):
        objects.read_array(folder, again, "a/w")


def test_files_of_a_run(server, tmp_path):
    folder = run_folder(URL)
    assert not folder.exists() and run_folder(folder) is folder and run_folder(tmp_path) == tmp_path
    files.write_json(folder / "a.json", {"x": 1})
    assert files.read_json(folder / "a.json") == {"x": 1} and files.read_json(folder / "b.json") is None
    assert folder.is_dir() and (folder / "a.json").is_file() and not (folder / "a").is_file() and [p.name for p in folder.glob("*.json*")] == ["a.json"]
    with pytest.raises(RuntimeError), files.atomic(folder / "a.json") as draft:
        draft.write_text("half")
        raise RuntimeError
    assert files.read_json(folder / "a.json") == {"x": 1}
    (folder / "a.json").unlink()
    with pytest.raises(FileNotFoundError, match="s3://bucket/some/run/a.json: expected an object"):
        (folder / "a.json").unlink()
    with pytest.raises(TypeError):
        tmp_path / folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_run_resumes_bit_exactly(tmp_path, seed):
    """SIGKILL right before or after a write or a deletion, six times."""
    done = subprocess.run([sys.executable, "-m", "tests.helpers.killed_remote_runs", tmp_path, str(seed), "6", "24"], cwd=ROOT, capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 6 and (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "unbroken.npz").read_bytes() == (tmp_path / "killed.npz").read_bytes()
    attempts = {key.rpartition("/")[0] for key in found["keys"] if key.endswith(".bin")}
    assert len(attempts) == len([key for key in found["keys"] if key.endswith("manifest.json")]) and "killed/.lock" not in found["keys"]


@pytest.mark.peers
def test_moto(monkeypatch, local):
    """The same run on the S3 server of another project (pip install 'moto[server]')."""
    from moto.server import ThreadedMotoServer
    emulator = ThreadedMotoServer(port=0, verbose=False)
    emulator.start()
    try:
        for name, value in {"AWS_ENDPOINT_URL": "http://{}:{}".format(*emulator.get_host_and_port()), "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
                            "AWS_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        import boto3
        boto3.client("s3").create_bucket(Bucket="bucket")
        assert equal(run(URL), local[1]) and equal(run(URL), local[1])
        assert (run_folder(URL) / "metrics.jsonl").read_bytes() == (local[0] / "metrics.jsonl").read_bytes()
        with pytest.raises(StoreError, match="NoSuchBucket"):
            run("s3://nowhere/run")
    finally:
        emulator.stop()


@pytest.mark.slow
def test_google_cloud_storage(tmp_path):
    """The same by gs://, in a process of its own, as TensorStore reads the server's address once."""
    done = subprocess.run([sys.executable, "-m", "tests.helpers.gcs_server", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["resumed"] and found["again"] and found["created once"] and found["lines"]
    assert len(found["errors"]) == 2 and all(error.startswith("gs://") and "\n" not in error for error in found["errors"]), found["errors"]
