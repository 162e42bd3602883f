"""A profiler trace of chosen steps in the run's folder."""
import contextlib
import shlex

import jax

from vmamba_jax.core.run_folder import Mirror, RemotePath, run_folder

FOLDER = "profile"


class Profiler:
    """A context manager that traces the steps `first` to `first + steps - 1` into `<workdir>/profile`, for xprof or TensorBoard.

    Every process traces its own devices. The trace begins once the steps before it have ended on the device, and ends with its last step; a run that
    resumes after `first` traces nothing.

    Args:
        workdir: the run's folder; None: no trace.
        first: first step, from 1.
        steps: number of steps; 0: no trace.
    """

    def __init__(self, workdir, first, steps):
        self.folder = None if workdir is None or not steps else run_folder(workdir).absolute() / FOLDER
        self._mirror = Mirror(self.folder) if isinstance(self.folder, RemotePath) else None
        self._first, self._last, self._open = first, first + steps - 1, False

    @property
    def command(self):
        """The shell line that shows the trace."""
        return f"xprof --logdir {shlex.quote(str(self.folder))} --port 8791"

    def step(self, step, before):
        """A context around the dispatch of a step.

        Args:
            step: its number.
            before: arrays to wait for where the trace begins.
        """
        if self.folder is None or not self._first <= step <= self._last:
            return contextlib.nullcontext()
        if step == self._first:
            jax.block_until_ready(before)
            jax.profiler.start_trace(self.folder if self._mirror is None else self._mirror.local)
            self._open = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step) if self._open else contextlib.nullcontext()

    def end(self, step, results):
        """Ends the trace after its last step; whether it did. results: arrays of the step to wait for."""
        if not self._open or step < self._last:
            return False
        jax.block_until_ready(results)
        self.__exit__()
        return True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._open:
            self._open = False
            jax.profiler.stop_trace()
            if self._mirror is not None:
                self._mirror.upload()
                self._mirror.close()
