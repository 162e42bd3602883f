"""Progress bars of programs and functions, in a terminal or a notebook, which say when a program compiles."""
import contextlib
import io
import time

import jax
from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

BEGUN = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")  # JAX's events when a program is traced, lowered
COMPILED = "/jax/core/compile/backend_compile_duration"                                               # and compiled, or found in the cache
WORD = "compiling"
NOTEBOOK_SECONDS, NOTEBOOK_WIDTH = 0.25, 120  # least time between two updates of a notebook's output, and its columns


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


class _Description(progress.ProgressColumn):
    """"compiling" while a program compiles, then the task's description."""

    def __init__(self, compiling):
        super().__init__(table_column=Column(no_wrap=True))
        self._compiling = compiling

    def render(self, task):
        return Text("  ".join(filter(None, (WORD if self._compiling.now else "", task.description))))


class Bar(progress.Progress):
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
        self._compiling, self._draws = Compiling(self._redraw), shown and jax.process_index() == 0
        self._cell, self._printed = None, 0.0
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
        self._compiling.now = False
        super().update(*args, **options)
        self._redraw(always=False)

    def advance(self, *args, **options):
        self._compiling.now = False
        super().advance(*args, **options)
        self._redraw(always=False)

    def start(self):
        self._compiling.__enter__()
        super().start()
        if self.console.is_jupyter and self._draws:
            from IPython.display import display
            self._cell = display({"text/plain": self._text()}, raw=True, display_id=True)

    def stop(self):
        self._compiling.__exit__()
        super().stop()
        self._redraw()
        self._cell = None

    def _redraw(self, always=True):
        """Replace the text in a notebook; rich draws by itself in a terminal."""
        if self._cell is not None and (always or time.monotonic() - self._printed >= NOTEBOOK_SECONDS):
            self._printed = time.monotonic()
            self._cell.update({"text/plain": self._text()}, raw=True)

    def _text(self):
        """The bar as one line of text."""
        console = Console(file=io.StringIO(), width=NOTEBOOK_WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
        console.print(self.get_renderable())
        return console.file.getvalue().rstrip()  # pyrefly: ignore
