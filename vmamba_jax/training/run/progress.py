"""Progress bar of a training run: step, time left, images/s and current metrics."""
from rich import progress
from rich.table import Column

from vmamba_jax.core import progress as bars

TRAINING = {"clean_accuracy": "clean", "accuracy": "accuracy"}  # metric: label; on the training batches
VALIDATION = {"validation/accuracy": "clean", "validation/robust_accuracy": "attacked", "validation/mIoU": "mIoU", "validation/robust_mIoU": "attacked mIoU",
              "validation/mask_AP": "mask AP", "validation/robust_mask_AP": "attacked mask AP"}


class Bar(bars.ProgressBar):
    """The bar of a run.

    Args:
        start: number of steps done before.
        steps: total number of steps.
        shown: show the bar.
    """

    def __init__(self, start, steps, shown=True):
        fixed = Column(no_wrap=True, min_width=len(f"step {steps}/{steps}"))
        columns = (progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}", table_column=fixed), progress.BarColumn(bar_width=20),
                   progress.TaskProgressColumn(), progress.TimeRemainingColumn())
        super().__init__(total=steps, columns=columns, completed=start, shown=shown)
        self._skipped, self._texts = 0, {"rate": [], "training": [], "validation": []}

    def done(self, steps):
        """Shows that so many steps are done."""
        self.update(0, completed=steps)

    def rate(self, timing):
        """Shows the rate and the fraction of time spent waiting for input. timing: a line of timing.jsonl, or empty."""
        if timing:
            self._texts["rate"] = [f"{timing['images_per_second']:,.0f} images/s", f"input {100 * timing['input_share']:.0f} %"]
        self._describe()

    def training(self, values):
        """Shows training metrics. values: means over a window of steps."""
        self._skipped += values.get("skipped", 0)
        self._texts["training"] = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        self._texts["training"] += _percentages(values, TRAINING) + ([f"skipped {self._skipped}"] if self._skipped else [])
        self._describe()

    def validation(self, values):
        """Shows validation accuracies. values: the result of `Validation.evaluate`."""
        percentages = _percentages(values, VALIDATION)
        self._texts["validation"] = ["validation:", *percentages] if percentages else []
        self._describe()

    def _describe(self):
        self.update(0, description="  ".join(text for texts in self._texts.values() for text in texts))


def _percentages(values, names):
    return [f"{label} {100 * values[name]:.1f} %" for name, label in names.items() if name in values]
