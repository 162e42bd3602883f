"""Progress bars: what a notebook shows, that a compilation is named while it lasts, and that a process without a terminal prints the last state alone."""
import dataclasses
import sys
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import evaluation, training
from vmamba_jax.core import progress

IMAGES, LABELS = np.eye(4, dtype=np.float32).reshape(4, 1, 4, 1), np.array([0, 1, 2, 2])


@pytest.fixture
def cell(monkeypatch):
    """The texts that the output of a notebook's cell had, one after the other; the test is the notebook."""
    texts = []
    put = lambda data, raw, **options: texts.append(data["text/plain"])
    handle = types.SimpleNamespace(update=put)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=lambda data, raw, display_id: put(data, raw) or handle))
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0)
    return texts


def test_evaluation_in_a_notebook(cell, capsys):
    with evaluation.ProgressBar("clean") as bar:
        evaluation.accuracy(lambda x: 2 * x[:, 0, :, 0], (IMAGES, LABELS), batch_size=2, mesh=jax.make_mesh((1,), ("batch",)), progress=bar)
    assert cell[0].startswith("clean ") and progress.WORD not in cell[0]
    compiled = [i for i, text in enumerate(cell) if progress.WORD in text]
    done = [i for i, text in enumerate(cell) if "accuracy" in text]
    assert compiled and done and compiled[0] < done[0] and "accuracy 100.0%" in cell[done[0]] and " 50%" in cell[done[0]]
    assert "accuracy 75.0%" in cell[-1] and "100%" in cell[-1] and progress.WORD not in cell[-1] and not capsys.readouterr().out


def test_training_in_a_notebook(cell):
    def step(state, batch, key, *, axis_name=None):
        return dataclasses.replace(state, step=state.step + 1), {"loss": batch["image"].mean()}
    state = training.TrainState(step=jnp.int32(0), params={"w": jnp.ones(1)}, model_state={}, opt_state=())
    batches = [{"image": IMAGES, "label": LABELS}] * 2
    training.train(step, state, batches, steps=2, key=jax.random.key(0), monitoring=training.Monitoring(log_every=2))
    first = next(i for i, text in enumerate(cell) if progress.WORD in text)
    assert "step 0/2" in cell[first] and "step 2/2" in cell[-1] and "loss 0.250" in cell[-1] and progress.WORD not in cell[-1]


def test_without_a_terminal(capsys, monkeypatch):
    """One line, of the last state; `shown=False` draws nothing, and a note is printed with the bar alone."""
    monkeypatch.setenv("COLUMNS", "200")
    for shown in (True, False):
        with progress.ProgressBar("work", 3, shown=shown) as bar:
            jax.jit(lambda x: x - 1)(1.0)
            bar.update(0, advance=1, description="a [b] c")
            bar.note("a note")
        out = capsys.readouterr().out
        assert (out.split("\n")[0], "33%" in out, out.count("work"), "a [b] c" in out, progress.WORD in out) == ("a note", True, 1, True, False) if shown else out == ""


def test_compiling_is_heard_from_jax():
    """True from the end of the trace of a program to the end of its compilation; not outside of the context."""
    seen = []
    with progress.Compiling(lambda: seen.append(compiling.now)) as compiling:
        compiled = jax.jit(lambda x: x + 3)
        compiled(1.0)
        assert seen[0] and not seen[-1] and not compiling.now
        count = len(seen)
        compiled(1.0)
        assert len(seen) == count
        jax.eval_shape(lambda x: x + 5, 1.0)
    jax.jit(lambda x: x + 4)(1.0)
    assert not compiling.now


def test_a_step_ends_the_word():
    """A program that is only traced, as for its shapes, is named until the next step of the task."""
    bar = progress.ProgressBar(total=2)
    bar._compiling.now = True
    text = progress.Cell(bar.get_renderable).text
    assert progress.WORD in text()
    bar.update(0, advance=1)
    assert progress.WORD not in text()


def test_a_thread_replaces_the_text(cell, monkeypatch):
    """Without a step, as in a sweep whose runs are those of other processes; the last state is shown at the end, and no thread remains."""
    monkeypatch.setattr(progress, "THREAD_SECONDS", 0.01)
    texts = iter(range(10**6))
    shown, threads = progress.Cell(lambda: f"state {next(texts)}"), threading.active_count()
    shown.start()
    while len(cell) < 4:
        time.sleep(0.01)
    shown.stop()
    count = len(cell)
    assert cell == [f"state {i}" for i in range(count)]
    shown.show()
    while threading.active_count() > threads:
        time.sleep(0.01)
    assert len(cell) == count
