"""The line a person watches: how far, how fast, how long still, and how good."""
import jax
from rich import progress
from rich.console import Console
from rich.table import Column

SHARES = {"clean_accuracy": "clean", "accuracy": "accuracy"}  # of the training batches, as trained on
VALIDATION = {"validation/accuracy": "clean", "validation/robust_accuracy": "attacked"}


class Bar:
    """A progress bar over `steps`, beginning at `start`; a context manager. Only the first process of several draws it."""

    def __init__(self, start, steps, shown=True):
        fixed = Column(no_wrap=True, min_width=len(f"step {steps}/{steps}"))
        self._bar = progress.Progress(
            progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}", table_column=fixed), progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(), progress.TimeRemainingColumn(), progress.TextColumn("{task.description}"), console=Console(),
            disable=not shown or jax.process_index() != 0)
        self._task = self._bar.add_task("", total=steps, completed=start)
        self._skipped, self._texts = 0, {"pace": [], "training": [], "validation": []}

    def advance(self, done):
        self._bar.update(self._task, completed=done)

    def pace(self, timing):
        """timing: a line of timing.jsonl."""
        if timing:
            self._texts["pace"] = [f"{timing['images_per_second']:,.0f} images/s", f"input {100 * timing['input_share']:.0f} %"]
        self._draw()

    def training(self, values):
        """values: means over a window of steps."""
        self._skipped += values.get("skipped", 0)
        self._texts["training"] = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        self._texts["training"] += _shares(values, SHARES) + ([f"skipped {self._skipped}"] if self._skipped else [])
        self._draw()

    def validation(self, values):
        """values: what `evaluate` returned."""
        shares = _shares(values, VALIDATION)
        self._texts["validation"] = ["validation:", *shares] if shares else []
        self._draw()

    def _draw(self):
        self._bar.update(self._task, description="  ".join(text for texts in self._texts.values() for text in texts))

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exc):
        self._bar.stop()


def _shares(values, names):
    return [f"{label} {100 * values[name]:.1f} %" for name, label in names.items() if name in values]
