"""Progress bar: step, time left, images/s and current metrics."""
import jax
from rich import progress
from rich.console import Console
from rich.table import Column

TRAINING = {"clean_accuracy": "clean", "accuracy": "accuracy"}  # metric: label; on the training batches
VALIDATION = {"validation/accuracy": "clean", "validation/robust_accuracy": "attacked", "validation/mIoU": "mIoU", "validation/robust_mIoU": "attacked mIoU",
              "validation/mask_AP": "mask AP", "validation/robust_mask_AP": "attacked mask AP"}


class Bar:
    """A context manager that shows a progress bar; only the first of several processes shows it.

    Args:
        start: number of steps done before.
        steps: total number of steps.
        shown: show the bar.
    """

    def __init__(self, start, steps, shown=True):
        fixed = Column(no_wrap=True, min_width=len(f"step {steps}/{steps}"))
        self._bar = progress.Progress(
            progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}", table_column=fixed), progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(), progress.TimeRemainingColumn(), progress.TextColumn("{task.description}"), console=Console(),
            disable=not shown or jax.process_index() != 0)
        self._task = self._bar.add_task("", total=steps, completed=start)
        self._skipped, self._texts = 0, {"rate": [], "training": [], "validation": []}

    def advance(self, done):
        self._bar.update(self._task, completed=done)

    def note(self, text):
        """Prints a line above the bar."""
        if not self._bar.disable:
            self._bar.console.print(text, highlight=False, soft_wrap=True)

    def rate(self, timing):
        """Shows the rate and the fraction of time spent waiting for input. timing: a line of timing.jsonl, or empty."""
        if timing:
            self._texts["rate"] = [f"{timing['images_per_second']:,.0f} images/s", f"input {100 * timing['input_share']:.0f} %"]
        self._draw()

    def training(self, values):
        """Shows training metrics. values: means over a window of steps."""
        self._skipped += values.get("skipped", 0)
        self._texts["training"] = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        self._texts["training"] += _percentages(values, TRAINING) + ([f"skipped {self._skipped}"] if self._skipped else [])
        self._draw()

    def validation(self, values):
        """Shows validation accuracies. values: the result of `Validation.evaluate`."""
        percentages = _percentages(values, VALIDATION)
        self._texts["validation"] = ["validation:", *percentages] if percentages else []
        self._draw()

    def _draw(self):
        self._bar.update(self._task, description="  ".join(text for texts in self._texts.values() for text in texts))

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exc):
        self._bar.stop()


def _percentages(values, names):
    return [f"{label} {100 * values[name]:.1f} %" for name, label in names.items() if name in values]
