"""The metrics file: complete lines, later ones removed on resume, readable after a crash."""
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from vmamba_jax.training import Writer, read_metrics
from vmamba_jax.training.run import metrics
from vmamba_jax.training.run.window import Window


def test_lines_are_on_disk_at_once(tmp_path):
    with Writer(tmp_path / "new") as writer:
        writer.write(10, {"loss": 0.5, "n": 3, "rate": jnp.float32(0.25)})
        assert (tmp_path / "new" / "metrics.jsonl").read_text() == '{"step": 10, "loss": 0.5, "n": 3, "rate": 0.25}\n'
        writer.write(20, {"loss": np.float64(0.1)})
    rows = [{"step": 10, "loss": 0.5, "n": 3, "rate": 0.25}, {"step": 20, "loss": 0.1}]
    assert read_metrics(tmp_path / "new") == read_metrics(tmp_path / "new" / "metrics.jsonl") == rows


def test_resume_removes_later_lines(tmp_path):
    kept = '{"step": 5,  "loss": 1.50}\n{"step": 5, "score": 2}\n'
    (tmp_path / "metrics.jsonl").write_text(kept + '{"step": 10, "loss": 1}\n{"step": 15, "lo')
    with Writer(tmp_path, step=5, tensorboard=False) as writer:
        writer.write(10, {"loss": 0.5})
    assert (tmp_path / "metrics.jsonl").read_text() == kept + '{"step": 10, "loss": 0.5}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "timing.jsonl"]


def test_fresh_start_empties_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1}\n')
    Writer(tmp_path, tensorboard=False).close()
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("end", range(1, 24))
def test_incomplete_last_line_is_ignored(tmp_path, end):
    whole, last = '{"step": 1, "loss": 2.0}\n', '{"step": 2, "loss": 1.5}'
    (tmp_path / "metrics.jsonl").write_text(whole + last[:end])
    assert read_metrics(tmp_path) == [json.loads(whole)]


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"loss": 1}', '{"step": "x"}', ""])
def test_other_damage_is_an_error(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match="line 2: expected a JSON object with a number 'step'"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("values, error, message", [
    ({"step": 1}, ValueError, "step=1: expected no 'step'"),
    ({"loss": "low"}, TypeError, "loss='low': expected a number"),
    ({"loss": np.zeros(2)}, TypeError, "loss=array of shape \\(2,\\): expected a scalar"),
])
def test_bad_values_write_nothing(tmp_path, values, error, message):
    with Writer(tmp_path, tensorboard=False) as writer, pytest.raises(error, match=message):
        writer.write(1, {"good": 1.0, **values})
    assert read_metrics(tmp_path) == []


def events(path):
    """The events of a TFRecord file: length, its checksum, record, its checksum, and so on."""
    data = path.read_bytes()
    while data:
        size = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12:12 + size])
        data = data[16 + size:]


def test_tensorboard_scalars(tmp_path):
    with Writer(tmp_path) as writer:
        writer.write(7, {"loss": 0.5})
        writer.time(7, {"images_per_second": 100.0})
    [path] = (tmp_path / "tensorboard").iterdir()
    found = {(event.step, value.tag): value.simple_value for event in events(path) for value in event.summary.value}
    assert found == {(7, "loss"): 0.5, (7, "images_per_second"): 100.0}
    assert read_metrics(tmp_path) == [{"step": 7, "loss": 0.5}]
    assert read_metrics(tmp_path / "timing.jsonl") == [{"step": 7, "images_per_second": 100.0}]


@pytest.mark.parametrize("which", ["tensorboard", "metrics"])
def test_full_disk_is_an_error_at_once(tmp_path, which, monkeypatch):
    """tensorboardX's own thread would end of it, and then block the run."""
    monkeypatch.setattr(metrics, "FLUSH_EVERY", 0)
    writer = Writer(tmp_path)
    writer.write(1, {"loss": 0.5})
    full = open("/dev/full", "wb") if which == "tensorboard" else open("/dev/full", "a", encoding="utf-8")
    if which == "tensorboard":
        writer._events._py_recordio_writer._writer, before = full, writer._events._py_recordio_writer._writer
    else:
        writer._files["metrics.jsonl"], before = full, writer._files["metrics.jsonl"]
    with pytest.raises(OSError, match="No space left on device"):
        writer.write(2, {"loss": 0.25})
    with pytest.raises(OSError, match="No space left on device"):
        writer.close()
    before.close()
    assert read_metrics(tmp_path)[0] == {"step": 1, "loss": 0.5} and (tmp_path / "timing.jsonl").is_file()
    [path] = (tmp_path / "tensorboard").iterdir()
    assert [event.step for event in events(path) if event.summary.value] == [1]


def test_tensorboard_purges_later_steps_on_resume(tmp_path):
    Writer(tmp_path, step=5).close()
    [path] = (tmp_path / "tensorboard").iterdir()
    assert [event.step for event in events(path) if event.session_log.status == event.session_log.START] == [6]


def test_window_means_and_resume():
    values = np.random.default_rng(0).normal(size=10).astype(np.float32)
    whole, part = Window(), Window()
    for step, x in enumerate(values):
        whole.add(step, {"loss": jnp.float32(x), "accuracy": x > 0})
    for step, x in enumerate(values[:4]):
        part.add(step, {"loss": jnp.float32(x), "accuracy": x > 0})
    part = Window(**json.loads(json.dumps(part.to_json())))
    for step, x in enumerate(values[4:], 4):
        part.add(step, {"loss": jnp.float32(x), "accuracy": x > 0})
    assert part.means() == whole.means()
    np.testing.assert_allclose(whole.means()["loss"], values.mean(), rtol=1e-5)
    assert whole.means()["accuracy"] == pytest.approx((values > 0).mean())
    assert Window(**json.loads(json.dumps(Window().to_json()))).beyond_limits() is None
    with pytest.raises(ValueError, match=r"metrics=\['loss'\] of step 11: expected \['accuracy', 'loss'\]"):
        part.add(11, {"loss": jnp.float32(0)})


VALUES = (1.0, math.inf, 2.0, math.nan, -math.inf, math.nan, 3.0)  # of the steps 1 to 7


@pytest.mark.parametrize("limits, step, counts", [
    ((0, None), 2, (1, 1)), ((1, None), 5, (2, 3)), ((2, None), 6, (3, 4)), ((3, None), None, None), ((None, 3), 6, (3, 4)), ((None, 0), 2, (1, 1)),
    ((None, None), None, None)])
@pytest.mark.parametrize("restart_at", [None, 3, 4])
def test_window_finds_the_first_step_beyond_the_limits(limits, step, counts, restart_at):
    """Also if the run was resumed, or a line written, between the steps."""
    window = Window(limits=limits)
    for t, value in enumerate(VALUES, 1):
        if t == restart_at and window.beyond_limits() is None:
            window.restart()
            window = Window(**json.loads(json.dumps(window.to_json())), limits=limits)
        window.add(t, {"loss": jnp.float32(value), "rate": jnp.float32(0.1)})
    found = window.beyond_limits()
    if step is None:
        assert found is None
    else:
        np.testing.assert_equal(found, (step, {"loss": VALUES[step - 1]}, dict(zip(("in_a_row", "in_all"), counts, strict=True))))


def test_skipped_steps_are_not_averaged():
    window = Window(limits=(None, None))
    for t, value in enumerate(VALUES, 1):
        window.add(t, {"loss": jnp.float32(value)})
    assert window.means() == {"loss": 2.0, "skipped": 4}
    window.restart()
    assert window.means() == {"skipped": 0}
    window.add(8, {"loss": jnp.float32(math.nan)})
    assert window.means() == {"skipped": 1} and window.to_json()["in_all"] == 5
