"""Progress bars of programs and functions, in a terminal or a notebook, which say when a program compiles."""
import contextlib
import io
import threading
import time

import jax
from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

BEGUN = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")  # JAX's events when a program is traced, lowered
COMPILED = "/jax/core/compile/backend_compile_duration"                                               # and compiled, or found in the cache
WORD = "compiling"
NOTEBOOK_SECONDS, THREAD_SECONDS, WIDTH = 0.25, 0.5, 120  # of a notebook's text: least time between two steps shown, between two of its thread; columns


class Compiling:
    """Context manager whose `now` says whether a program has been traced and is not compiled yet.

    Args:
        changed: called without arguments when `now` changes, from the thread that compiles.
    """

    def __init__(self, changed=lambda: None):
        self.now, self._changed = False, changed

    def set(self, now):
        if now != self.now:
            self.now = now
            self._changed()

    def _heard(self, event, seconds, **options):
        del seconds, options
        if event == COMPILED or event in BEGUN:
            self.set(event != COMPILED)

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *exc):
        self.now = False
        with contextlib.suppress(AssertionError):  # somebody cleared all listeners
            jax.monitoring.unregister_event_duration_listener(self._heard)


class Cell:
    """Text in the output of a notebook's cell that a thread replaces twice a second; rich's own display there needs ipywidgets.

    Args:
        render: called without arguments for a rich renderable.
    """

    def __init__(self, render):
        self._render, self._handle, self._shown, self._stopped, self._lock = render, None, 0.0, threading.Event(), threading.Lock()

    def start(self):
        from IPython.display import display
        self._handle = display({"text/plain": self.text()}, raw=True, display_id=True)
        threading.Thread(target=self._run, daemon=True).start()

    def show(self, least=0.0):
        """Replace the text, unless that was done less than so many seconds ago."""
        with self._lock:
            if self._handle is not None and time.monotonic() - self._shown >= least:
                self._shown = time.monotonic()
                self._handle.update({"text/plain": self.text()}, raw=True)

    def stop(self):
        self._stopped.set()
        self.show()
        self._handle = None

    def _run(self):
        while not self._stopped.wait(THREAD_SECONDS):
            self.show()

    def text(self):
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
        console.print(self._render())
        return console.file.getvalue().rstrip()  # pyrefly: ignore


class _Description(progress.ProgressColumn):
    """"compiling" while a program compiles, then the task's description."""

    def __init__(self, compiling):
        super().__init__(table_column=Column(no_wrap=True))
        self._compiling = compiling

    def render(self, task):
        return Text("  ".join(filter(None, (WORD if self._compiling.now else "", task.description))))


class ProgressBar(progress.Progress):
    """A progress bar with one task, number 0: a context manager that only the first of several processes draws.

    In a notebook it is a line of text that is replaced in the output of the cell. Without a terminal only the last state is printed. It can be the
    argument `progress` of an evaluation or analysis: it then counts examples and shows the figures so far.

    Args:
        name: text before the bar.
        total: steps of the task; None: not known yet.
        count: rich's column of the count; None: per cent.
        columns: all of rich's columns before the description; (): name, bar, count and time left.
        completed: steps done before.
        shown: whether to draw it.
    """

    def __init__(self, name="", total=None, *, count=None, columns=(), completed=0, shown=True):
        console = Console()
        self._cell, self._draws = Cell(self.get_renderable), shown and jax.process_index() == 0
        self._compiling = Compiling(self._cell.show)
        columns = columns or (progress.TextColumn(name), progress.BarColumn(), count or progress.TaskProgressColumn(), progress.TimeRemainingColumn())
        super().__init__(*columns, _Description(self._compiling), console=console, disable=console.is_jupyter or not self._draws)
        self.add_task("", total=total, completed=completed)

    def __call__(self, done, total, figures):
        """Show that so many examples are done, and the figures: accuracies in percent, other numbers and texts as they are."""
        texts = (f"{name.replace('_', ' ')} {value:.1%}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        self.update(0, completed=done, total=total, description="  ".join(texts))

    def note(self, text):
        """Print a line above the bar."""
        if self._draws:
            self.console.print(text, highlight=False, soft_wrap=True)

    def update(self, *args, **options):
        """As `rich.progress.Progress.update`: shows the task's completed steps, total and description."""
        self._compiling.now = False
        super().update(*args, **options)
        self._cell.show(NOTEBOOK_SECONDS)

    def advance(self, *args, **options):
        """As `rich.progress.Progress.advance`: shows more completed steps."""
        self._compiling.now = False
        super().advance(*args, **options)
        self._cell.show(NOTEBOOK_SECONDS)

    def start(self):
        """Draw the bar; entering the context does so."""
        self._compiling.__enter__()
        super().start()
        if self.console.is_jupyter and self._draws:
            self._cell.start()

    def stop(self):
        """Draw the last state and end; leaving the context does so."""
        self._compiling.__exit__()
        super().stop()
        self._cell.stop()
