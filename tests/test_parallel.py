"""One step under jit, pmap and map_step is one step; batches go to the devices and come back whole."""
import functools
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vmamba_jax import parallel


def sgd(state, batch, key, *, axis_name=None):
    """A toy step: linear regression with per-device noise on the inputs, gradients and loss averaged."""
    i = lax.axis_index(axis_name) if axis_name else 0
    noise = jax.vmap(lambda j: jax.random.normal(jax.random.fold_in(key, j), (3,)))(i * len(batch["x"]) + jnp.arange(len(batch["x"])))
    loss, grad = jax.value_and_grad(lambda w: (((batch["x"] + noise) @ w - batch["y"]) ** 2).mean())(state["w"])
    if axis_name:
        loss, grad = lax.pmean((loss, grad), axis_name)
    return {"w": state["w"] - 0.1 * grad, "step": state["step"] + 1}, {"loss": loss}


def data():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(16, 3)).astype(np.float32), "y": rng.normal(size=16).astype(np.float32)}


def fresh():
    return {"w": jnp.arange(3.0), "step": jnp.int32(0)}


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_map_step_equals_jit_and_pmap(devices):
    key, batch = jax.random.key(3), data()
    plain = jax.jit(sgd)
    mapped_batch = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    pmapped = jax.pmap(functools.partial(sgd, axis_name="data"), axis_name="data", in_axes=(None, 0, None), devices=jax.devices()[:devices])
    mesh = parallel.data_mesh(jax.devices()[:devices])
    step = parallel.map_step(sgd, mesh)
    state, old, per_device = parallel.replicate(fresh(), mesh), fresh(), fresh()
    for t in range(3):
        k = jax.random.fold_in(key, t)
        state, metrics = step(state, parallel.shard_batch(batch, mesh), k)
        old, expected = plain(old, batch, k)
        outputs, mapped = pmapped(per_device, mapped_batch, k)
        per_device = jax.tree.map(lambda x: np.asarray(x)[0], outputs)
        np.testing.assert_allclose(state["w"], per_device["w"], rtol=1e-6)
        np.testing.assert_allclose(state["w"], old["w"], rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
        np.testing.assert_allclose(np.asarray(mapped["loss"])[-1], expected["loss"], rtol=1e-5)
    assert int(state["step"]) == 3 and state["w"].sharding.is_fully_replicated


def test_map_step_donates():
    mesh = parallel.data_mesh()
    state = parallel.replicate(fresh(), mesh)
    parallel.map_step(sgd, mesh)(state, parallel.shard_batch(data(), mesh), jax.random.key(0))
    assert state["w"].is_deleted()
    kept = parallel.replicate(fresh(), mesh)
    parallel.map_step(sgd, mesh, donate=False)(kept, parallel.shard_batch(data(), mesh), jax.random.key(0))
    assert not kept["w"].is_deleted()


def test_map_batch_sees_its_slice():
    mesh = parallel.data_mesh()

    def fn(tree, batch, key):
        i = lax.axis_index("data")
        n = len(batch["x"])
        return {"y": batch["x"] * tree["a"], "device": jnp.full(n, i), "noise": jnp.full(n, jax.random.bits(key))}
    x = np.arange(16.0, dtype=np.float32)
    out = parallel.map_batch(fn, mesh)({"a": jnp.float32(2)}, parallel.shard_batch({"x": x}, mesh), jax.random.key(0))
    host = parallel.to_host(out)
    np.testing.assert_array_equal(host["y"], 2 * x)
    np.testing.assert_array_equal(host["device"], np.arange(16) // 2)
    assert len(out["y"].sharding.device_set) == 8 and len(np.unique(host["noise"])) == 1


def test_another_axis_name():
    mesh = parallel.data_mesh(jax.devices()[:2], axis_name="batch")
    _, metrics = parallel.map_step(sgd, mesh, axis_name="batch")(fresh(), parallel.shard_batch(data(), mesh), jax.random.key(0))
    np.testing.assert_allclose(metrics["loss"], jax.jit(sgd)(fresh(), data(), jax.random.key(0))[1]["loss"], rtol=1e-5)


@pytest.mark.parametrize(("rows", "multiple", "padded"), [(1, 4, 4), (4, 4, 4), (5, 4, 8), (3, 1, 3)])
def test_pad_batch(rows, multiple, padded):
    batch = {"image": np.arange(rows * 2.0).reshape(rows, 2), "label": jnp.arange(rows)}
    out, n = parallel.pad_batch(batch, multiple)
    assert n == rows and out["image"].shape == (padded, 2) and out["label"].shape == (padded,)
    np.testing.assert_array_equal(out["image"][:rows], batch["image"])
    assert (out["image"][rows:] == batch["image"][-1]).all() and (out["label"][rows:] == rows - 1).all()


def test_errors():
    mesh = parallel.data_mesh()
    with pytest.raises(ValueError, match="batch has 12 rows: expected a multiple of 8"):
        parallel.shard_batch({"x": np.zeros(12)}, mesh)
    with pytest.raises(ValueError, match="batch has 12 rows: expected a multiple of 8"):
        parallel.map_step(sgd, mesh)(fresh(), {"x": np.zeros((12, 3)), "y": np.zeros(12)}, jax.random.key(0))
    with pytest.raises(ValueError, match="same number of rows"):
        parallel.shard_batch({"x": np.zeros(8), "y": np.zeros(16)}, mesh)
    with pytest.raises(ValueError, match="same number of rows"):
        parallel.shard_batch({"x": np.zeros(8), "y": 3.0}, mesh)
    with pytest.raises(ValueError, match="axis_name='model'"):
        parallel.map_step(sgd, mesh, axis_name="model")
    with pytest.raises(ValueError, match="axis_name='model'"):
        parallel.map_batch(lambda t, b, k: b, mesh, axis_name="model")
    with pytest.raises(ValueError, match="multiple=0"):
        parallel.pad_batch({"x": np.zeros(3)}, 0)
    with pytest.raises(ValueError, match="0 rows"):
        parallel.pad_batch({"x": np.zeros((0, 2))}, 4)
    with pytest.raises(ValueError, match="devices="):
        parallel.data_mesh([])


@pytest.mark.parametrize(("options", "text"), [
    ({"num_processes": 2}, "coordinator_address, process_id missing: expected .* in the environment as VMAMBA_JAX_COORDINATOR, VMAMBA_JAX_PROCESS$"),
    ({"coordinator_address": "a:1", "process_id": 0}, "num_processes missing"),
    ({"coordinator_address": "a:1", "num_processes": 2, "process_id": 2}, "process_id=2: expected 0 <= process_id < num_processes=2"),
    ({"coordinator_address": "a:1", "num_processes": 1, "process_id": 1}, "process_id=1"),
    ({"coordinator_address": "a:1", "num_processes": 0, "process_id": 0}, "num_processes=0"),
    ({"coordinator_address": "nowhere", "num_processes": 2, "process_id": 0}, "coordinator_address='nowhere'"),
    ({"coordinator_address": "a:65536", "num_processes": 2, "process_id": 0}, "coordinator_address='a:65536'"),
    ({"num_processes": 2, "auto": True}, "auto=True with num_processes"),
    ({"initialization_timeout": 0}, "initialization_timeout=0"),
])
def test_initialize_errors(options, text):
    with pytest.raises(ValueError, match=text):
        parallel.initialize(**options)


def test_initialize_one_process_is_nothing(monkeypatch):
    parallel.initialize()
    parallel.initialize(num_processes=1)
    parallel.initialize("localhost:1", 1, 0)
    monkeypatch.setenv("VMAMBA_JAX_PROCESSES", "1")
    parallel.initialize()
    assert not jax.distributed.is_initialized()


@pytest.fixture
def joined(monkeypatch):
    """What jax.distributed.initialize is called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, initialization_timeout, **options: calls.append((args, options)))
    return calls


@pytest.fixture
def coordinator():
    """The address of a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_initialize_passes_on(joined, coordinator):
    parallel.initialize(coordinator, 2, 1, heartbeat_timeout_seconds=9)
    parallel.initialize("host:80", 2, 0)
    parallel.initialize(auto=True)
    assert joined == [((coordinator, 2, 1), {"heartbeat_timeout_seconds": 9}), (("host:80", 2, 0), {}), ((), {})]


def test_initialize_reads_the_environment(joined, coordinator, monkeypatch):
    for name, value in {"VMAMBA_JAX_COORDINATOR": coordinator, "VMAMBA_JAX_PROCESSES": "3", "VMAMBA_JAX_PROCESS": "2"}.items():
        monkeypatch.setenv(name, value)
    parallel.initialize()
    parallel.initialize(process_id=1)  # an argument comes before the environment
    parallel.initialize(auto=True)
    assert joined == [((coordinator, 3, 2), {}), ((coordinator, 3, 1), {}), ((), {})]
    monkeypatch.setenv("VMAMBA_JAX_PROCESS", "second")
    with pytest.raises(ValueError, match="VMAMBA_JAX_PROCESS='second' in the environment: expected a whole number, process_id"):
        parallel.initialize()


def test_a_coordinator_that_is_not_there_is_named(joined, coordinator):
    host, port = coordinator.split(":")
    with socket.create_server((host, 0)) as closed:
        nobody = f"{host}:{closed.getsockname()[1]}"
    with pytest.raises(TimeoutError, match=f"coordinator_address='{nobody}': process 0 was not reached within 1 s .*refused"):
        parallel.initialize(nobody, 2, 1, initialization_timeout=1)
    assert not joined


def test_no_cluster_is_said(monkeypatch):
    def found_none(**_):
        raise ValueError("coordinator_address should be defined.")
    monkeypatch.setattr(jax.distributed, "initialize", found_none)
    with pytest.raises(ValueError, match="auto=True, but JAX detects no cluster .*: expected coordinator_address, num_processes, process_id"):
        parallel.initialize(auto=True)


def test_fingerprint_is_of_every_bit():
    mesh = parallel.data_mesh()
    tree = {"w": jnp.arange(3.0), "b": np.zeros((2, 2), np.int32)}
    first = parallel.fingerprint(tree)
    assert first == parallel.fingerprint(parallel.replicate(tree, mesh)) and len(first) == 64
    others = [{**tree, "w": tree["w"].at[1].add(1e-7)}, {**tree, "b": tree["b"].reshape(4)}, {**tree, "b": tree["b"].astype(np.float32)}]
    assert len({first, *map(parallel.fingerprint, others)}) == 4


def test_processes_that_differ_are_named(monkeypatch):
    """As the first of three processes, of which the last holds other arrays."""
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(parallel.multihost_utils, "process_allgather", lambda own: np.stack([own, own, own + 1]))
    with pytest.raises(RuntimeError, match=r"processes \[2\] differ from those of process 0: expected the same in all 3"):
        parallel.fingerprint({"w": np.zeros(3)})
    monkeypatch.setattr(parallel.multihost_utils, "process_allgather", lambda own: np.stack([own] * 3))
    assert len(parallel.fingerprint({"w": np.zeros(3)})) == 64
