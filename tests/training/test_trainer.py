"""The training loop: bit-exact resumes, errors that name their cause, the same results on a mesh, and what a run reports."""
import functools
import re
import time

import jax
import numpy as np
import pytest

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy, batch, close, same
from vmamba_jax import attacks, parallel, training
from vmamba_jax.training import Checkpointing, Monitoring, Validation
from vmamba_jax.training.run.clock import PHASES
from vmamba_jax.training.run.progress import Bar

KEY = jax.random.key(5)
CLASSIFIER = Classifier(Net("batch", dropout=0.3))
OPTIMIZER = training.optimizer.create("adamw", learning_rate=training.schedules.cosine(0.02, total_steps=10, warmup_steps=2))
STEP = training.objectives.pgd_at(CLASSIFIER, OPTIMIZER, attack=attacks.pgd(0.05, steps=2, step_size=0.03), ema_decay=0.8)
quiet = functools.partial(Monitoring, progress=False)
train = functools.partial(training.train, key=KEY, monitoring=quiet())


@pytest.fixture(scope="module")
def state():
    return training.create_state(CLASSIFIER, OPTIMIZER, jax.random.key(0), SHAPE, ema_decay=0.8)


def evaluate(state, step):
    """A stand-in that depends on the weights and worsens with the steps."""
    return {"score": -float(step), "norm": float(abs(state.ema["Dense_0"]["kernel"]).sum())}


RUN = {"steps": 10, "checkpoints": Checkpointing(every=5), "validation": Validation(evaluate, every=3), "monitoring": quiet(log_every=4)}


@pytest.fixture(scope="module")
def unbroken(state, tmp_path_factory):
    """(final state, folder) of ten steps without interruption."""
    folder = tmp_path_factory.mktemp("unbroken")
    return train(STEP, state, Toy(), workdir=folder, **RUN), folder


def lines(folder):
    return (folder / "metrics.jsonl").read_text()


def test_files_of_a_run(state, unbroken):
    final, folder = unbroken
    assert int(final.step) == 10 and int(state.step) == 0  # the given state is copied
    rows = training.read_metrics(folder)
    assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 10, 10]
    assert rows[0].keys() == {"step", "score", "norm"}
    assert rows[1].keys() == {"step", "loss", "accuracy", "grad_norm", "learning_rate", "skipped"}
    np.testing.assert_allclose(rows[1]["learning_rate"], np.mean([0, 0.01, 0.02, 0.01 * (1 + np.cos(np.pi / 8))]), rtol=1e-5)
    with training.Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [5, 10]
        same(checkpoints.restore(state), final)


@pytest.mark.parametrize("stops", [(7,), (2, 6, 8)])
def test_stopped_run_resumes_bit_exactly(tmp_path, state, unbroken, stops):
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(STEP, state, Toy(stop_at=stop), workdir=tmp_path, **RUN)
    batches = Toy()
    final = train(STEP, state, batches, workdir=tmp_path, **RUN)
    assert batches.read == list(range(5 if stops[-1] > 5 else 0, 10))
    same(final, unbroken[0])
    assert lines(tmp_path) == lines(unbroken[1])


def test_five_and_five_are_ten(tmp_path, state):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    options = {"checkpoints": Checkpointing(every=5), "monitoring": quiet(log_every=5)}
    final = train(STEP, state, Toy(), steps=10, workdir=whole, **options)
    train(STEP, state, Toy(), steps=5, workdir=halves, **options)
    same(train(STEP, state, Toy(), steps=10, workdir=halves, **options), final)
    assert lines(halves) == lines(whole)
    batches = Toy()
    same(train(STEP, state, batches, steps=10, workdir=halves, **options), final)  # finished: nothing to do
    assert batches.read == [] and lines(halves) == lines(whole)


def test_worsening_run_keeps_best_and_latest(tmp_path, state):
    train(STEP, state, Toy(), steps=8, workdir=tmp_path, validation=Validation(evaluate, every=2),
          checkpoints=Checkpointing(best_metric="score", config={"seed": 5}))
    with training.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best_step, checkpoints.config) == ([2, 6, 8], 2, {"seed": 5})


@pytest.mark.slow
def test_mesh_makes_the_same_run(tmp_path, state):
    """With LayerNorm and without dropout, eight devices give the result of one; a run resumes on either."""
    classifier = Classifier()
    step = training.objectives.pgd_at(classifier, OPTIMIZER, attack=attacks.pgd(0.05, steps=2, step_size=0.03))
    state = training.create_state(classifier, OPTIMIZER, jax.random.key(0), SHAPE)
    logged, mesh = {}, parallel.data_mesh()
    final = train(step, state, Toy(), steps=6, monitoring=quiet(log_every=1, on_log=lambda t, values: logged.setdefault(t, values["loss"])))
    train(step, state, Toy(), steps=3, monitoring=quiet(log_every=1), workdir=tmp_path)
    spread = train(step, state, Toy(), steps=6, monitoring=quiet(log_every=1), workdir=tmp_path, mesh=mesh)
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(spread)} == {8}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), spread, final)
    np.testing.assert_allclose([row["loss"] for row in training.read_metrics(tmp_path)], list(logged.values()), atol=1e-5)


@pytest.mark.parametrize("checkpoint_every, last", [(2, "step 2 in .*checkpoints"), (None, "none")])
def test_nonfinite_loss_stops_the_run(tmp_path, state, checkpoint_every, last):
    options = {"steps": 8, "monitoring": quiet(log_every=8), "checkpoints": Checkpointing(every=checkpoint_every), "workdir": tmp_path}
    with pytest.raises(FloatingPointError, match=rf"step 4: a metric is not finite \(.*loss = nan.*\), 1 such .*last checkpoint: {last}"):
        train(STEP, state, Toy(broken_at=3), **options)
    assert int(train(STEP, state, Toy(), **options).step) == 8  # the bad state was not saved


class Bad(Toy):
    """Has a NaN in the batches `bad`."""

    def __init__(self, bad, **options):
        super().__init__(**options)
        self.bad = bad

    def __getitem__(self, t):
        found = super().__getitem__(t)
        if t in self.bad:
            found["image"][3] = np.nan
        return found


def test_skips_within_the_limits(tmp_path, state):
    options = {"steps": 10, "checkpoints": Checkpointing(every=3), "monitoring": quiet(log_every=4, skips_in_a_row=2, skips_in_all=3)}
    bad = (2, 3, 7)
    final = train(STEP, state, Bad(bad), workdir=tmp_path / "unbroken", **options)
    rows = training.read_metrics(tmp_path / "unbroken")
    assert [row["skipped"] for row in rows] == [2, 1, 0] and all(np.isfinite(list(row.values())).all() for row in rows)
    assert int(final.step) == 10 and int(final.opt_state[0].count) == 7
    with pytest.raises(KeyboardInterrupt):
        train(STEP, state, Bad(bad, stop_at=6), workdir=tmp_path / "stopped", **options)
    same(train(STEP, state, Bad(bad), workdir=tmp_path / "stopped", **options), final)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "unbroken")


@pytest.mark.parametrize("limits, bad, step", [((1, None), (2, 4, 5, 6), 6), ((None, 2), (2, 4, 6), 7)])
def test_skips_beyond_the_limits(tmp_path, state, limits, bad, step):
    """The error names the step and its examples, also if earlier skips were before a resume."""
    class Named(Bad):
        def __getitem__(self, t):
            return super().__getitem__(t) | {"index": 100 * t + np.arange(self.batch_size)}

    skips = dict(zip(("skips_in_a_row", "skips_in_all"), limits, strict=True))
    options = {"checkpoints": Checkpointing(every=5), "monitoring": quiet(log_every=4, **skips), "workdir": tmp_path}
    train(STEP, state, Named(bad), steps=5, **options)
    message = rf"step {step}: .*limit: {limits[0] or 'none'} in a row, {limits[1] or 'none'} in total\); examples of its batch: \[{step - 1}00, {step - 1}01, .*last checkpoint: step 5 in"
    with pytest.raises(FloatingPointError, match=message):
        train(STEP, state, Named(bad), steps=10, **options)


class Stream:
    """A loader with a state: batches in an order drawn while reading."""

    def __init__(self, length=100):
        self.batches, self.length, self.place = Toy(), length, {"taken": 0, "word": 1}

    def __iter__(self):
        return self

    def __next__(self):
        if self.place["taken"] == self.length:
            raise StopIteration
        self.place = {"taken": self.place["taken"] + 1, "word": self.place["word"] * 16807 % 2147483647}
        return self.batches[self.place["word"] % 1000]

    def get_state(self):
        return dict(self.place)

    def set_state(self, state):
        self.place = dict(state)


def test_loader_state_in_checkpoints(tmp_path, state):
    options = {"checkpoints": Checkpointing(every=3), "monitoring": quiet(log_every=2), "workdir": tmp_path}
    train(STEP, state, Stream(), steps=4, **options)
    with training.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:  # of the batch trained on, not of the one read ahead
        assert [checkpoints.extra(step)["loader"][0]["taken"] for step in (3, 4)] == [3, 4]
    resumed = train(STEP, state, Stream(), steps=7, **options)
    same(resumed, train(STEP, state, Stream(), steps=7))
    with pytest.raises(ValueError, match="was saved with a loader's state: expected batches that have get_state and set_state"):
        train(STEP, state, Toy(), steps=9, **options)
    with pytest.raises(ValueError, match="batches ended after 8 of 9 steps"):
        train(STEP, state, Stream(8), steps=9, **options)


def test_timing_file(state, tmp_path):
    train(STEP, state, Toy(), steps=9, monitoring=quiet(log_every=3), workdir=tmp_path)
    rows = training.read_metrics(tmp_path / "timing.jsonl")
    assert [row["step"] for row in rows] == [3, 6, 9]
    for row in rows:
        assert row.keys() == {"step", "seconds", "images_per_second", "input_share", *(f"{phase}_seconds" for phase in PHASES)}
        assert row["images_per_second"] > 0 and 0 <= row["input_share"] <= 1 and row["seconds"] > 0


def test_input_share_of_a_slow_loader(state, tmp_path):
    class Slow(Toy):
        def __getitem__(self, t):
            time.sleep(0.05)
            return super().__getitem__(t)
    train(STEP, state, Slow(), steps=9, monitoring=quiet(log_every=9), workdir=tmp_path)
    row, = training.read_metrics(tmp_path / "timing.jsonl")
    assert row["input_share"] > 0.5 and row["seconds"] > 0.25  # the first step is not counted, and two batches are prefetched
    assert row["images_per_second"] * row["seconds"] == pytest.approx(8 * len(Toy()[0]["label"]), rel=1e-3)


def test_timing_excludes_validation(state, tmp_path):
    slow = Validation(lambda state, step: time.sleep(0.8 * (step == 3)) or {}, every=3)
    train(STEP, state, Toy(), steps=6, monitoring=quiet(log_every=3), validation=slow, workdir=tmp_path)
    first, last = training.read_metrics(tmp_path / "timing.jsonl")
    assert last["seconds"] < 0.8
    assert first["validation_seconds"] > 0.8 > last["validation_seconds"] and first["compile_seconds"] > 0 == last["compile_seconds"]
    assert last["step_seconds"] + last["data_seconds"] <= last["seconds"] + 0.1  # writing the lines is counted too


def test_profile_of_chosen_steps(state, tmp_path, capsys):
    train(STEP, state, Toy(), steps=6, monitoring=Monitoring(profile_first=3, profile_steps=2), workdir=tmp_path)
    assert f"profile of steps 3 to 4: xprof --logdir {tmp_path / 'profile'}" in capsys.readouterr().out.replace("\n", "")
    trace, = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train" in trace.read_bytes()
    train(STEP, state, Toy(), steps=6, monitoring=quiet(profile_first=3, profile_steps=2), workdir=tmp_path)
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1  # a finished run is not traced again


def test_uint8_images_train_as_floats(state):
    floats = [{"image": np.float32(batch) / np.float32(255), "label": np.arange(len(batch)) % 3} for batch in
              np.random.default_rng(0).integers(0, 256, (2, 8, *SHAPE), np.uint8)]
    raw = [batch | {"image": np.uint8(np.round(batch["image"] * 255))} for batch in floats]
    mesh = parallel.data_mesh(jax.devices()[:2])
    same(train(STEP, state, raw, steps=2, mesh=mesh), train(STEP, state, floats, steps=2, mesh=mesh))


def test_one_run_per_folder(state, tmp_path, monkeypatch):
    def locked(*args):
        raise BlockingIOError
    monkeypatch.setattr("fcntl.flock", locked)
    with pytest.raises(training.Locked, match="is in use by another process"):
        train(STEP, state, Toy(), steps=1, workdir=tmp_path)


def test_no_files_without_a_workdir(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged = []
    train(STEP, state, Toy(), steps=3, monitoring=quiet(log_every=2, on_log=lambda step, values: logged.append(step)))
    assert logged == [2, 3] and not list(tmp_path.iterdir())


def test_bar_of_a_run(state, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = {"validation/accuracy": 0.9, "validation/robust_accuracy": 0.5}
    train(STEP, state, Toy(), steps=3, validation=Validation(lambda state, step: found), monitoring=Monitoring(log_every=1))
    out = capsys.readouterr().out
    for text in ("step 3/3", "images/s", "input", "loss", "accuracy", "validation:", "clean 90.0 %", "attacked 50.0 %"):
        assert text in out, text


def test_bar_shows_the_time_left(capsys, monkeypatch):
    """Half of the steps after the resume took 60 s: 60 s remain."""
    now = [1000.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "200")
    with Bar(100, 120) as bar:
        for done in range(101, 111):
            now[0] += 6
            bar.done(done)
    assert "step 110/120" in (out := capsys.readouterr().out)
    assert re.findall(r"\d+:\d\d:\d\d", out) == ["0:01:00"], out


def test_bar_of_a_resumed_run_starts_at_its_step(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with Bar(100, 120):
        pass
    assert "step 100/120" in capsys.readouterr().out


def test_bar_adds_up_skipped_steps(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with Bar(0, 20) as bar:
        for skipped in (2, 0, 3):
            bar.training({"loss": 1.0, "skipped": skipped})
    assert "loss 1.000  skipped 5" in capsys.readouterr().out


def test_checkpoints_have_metrics_only_if_ranked(tmp_path, state):
    for name, best_metric, found in (("ranked", "score", evaluate(state, 2)), ("unranked", None, None)):
        train(STEP, state, Toy(), steps=2, workdir=tmp_path / name, validation=Validation(lambda given, step: evaluate(state, step)),
              checkpoints=Checkpointing(best_metric=best_metric))
        with training.Checkpoints(tmp_path / name / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.metrics() == found


@pytest.mark.parametrize("options, message", [
    (lambda: {"steps": 0}, "steps=0: expected an integer >= 1"),
    (lambda: {"steps": 1, "checkpoints": Checkpointing(best_metric="score")}, "best_metric='score' with validation=None: expected a Validation"),
    (lambda: {"monitoring": Monitoring(log_every=0)}, "log_every=0: expected an integer >= 1"),
    (lambda: {"monitoring": Monitoring(skips_in_a_row=-1)}, "skips_in_a_row=-1: expected None or an integer >= 0"),
    (lambda: {"monitoring": Monitoring(skips_in_all=-1)}, "skips_in_all=-1: expected None or an integer >= 0"),
    (lambda: {"checkpoints": Checkpointing(every=1.5)}, "every=1.5: expected None or an integer >= 1"),
    (lambda: {"checkpoints": Checkpointing(keep_latest=0)}, "keep_latest=0: expected an integer >= 1"),
    (lambda: {"validation": Validation(evaluate, every=0)}, "every=0: expected None or an integer >= 1"),
    (lambda: {"validation": Validation(None, every=5)}, "evaluate=None: expected a function"),
])
def test_errors(state, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        train(STEP, state, Toy(), **options())


def test_old_keywords_warn(state, unbroken):
    old = {"log_every": 4, "checkpoint_every": 5, "eval_every": 3, "evaluate": evaluate, "progress": False}
    with pytest.warns(DeprecationWarning, match=r"train\(.*=\.\.\.\) is now train\(.*="):
        same(training.train(STEP, state, Toy(), steps=10, key=KEY, **old), unbroken[0])


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(5)], ids=["typed", "legacy"])
def test_loop_is_the_step_with_batch_t_and_key_t(key):
    """Up to rounding, as the loop's program is compiled as a whole. SGD, as Adam amplifies gradients that are rounding errors."""
    classifier, optimizer = Classifier(Net(dropout=0.3)), training.optimizer.create("sgd", learning_rate=0.1)
    state = training.create_state(classifier, optimizer, jax.random.key(0), SHAPE)
    bare = training.objectives.pgd_at(classifier, optimizer, attack=attacks.pgd(0.05, steps=1))
    final, expected, step = train(bare, state, Toy(), steps=3, key=key), state, jax.jit(bare)
    for t in range(3):
        expected, _ = step(expected, batch(t), jax.random.fold_in(key, t))
    close(final, expected, rtol=1e-5)
