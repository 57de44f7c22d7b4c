"""Progress of long work on stderr: one line per stage, with the time that is left.

Progress is shown if stderr is a terminal (or a notebook) and `c2l --quiet` was not given. It is removed when the work
ends, so that only results stay. Stages may be nested: a network's features within a probe.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_quiet = False
_enclosing: ContextVar[bool | None] = ContextVar("c2l_enclosing_stage", default=None)


def be_quiet() -> None:
    """Show no progress from now on. Warnings and results stay."""
    global _quiet
    _quiet = True


class Stage:
    """A line of the display; one that shows nothing if `progress` is None."""

    def __init__(self, progress: "Progress | None" = None, task: "TaskID | None" = None) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: float = 1) -> None:
        """Count work as done, in the stage's unit."""
        self._update(advance=count)

    def note(self, text: str) -> None:
        """Show a text at the end of the line, such as the loss."""
        self._update(note=text)

    def _update(self, **changes: Any) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, **changes)


@contextmanager
def stage(
    label: str, total: int | None = None, unit: str = "", show: bool | None = None, done: int = 0
) -> Iterator[Stage]:
    """Show a line while the context lasts.

    Args:
        label: what is being done.
        total: amount of work in `unit`; None: not known, so only the elapsed time is shown.
        unit: such as "images".
        show: True: show the line, and the stages within. False: hide both. None: as the enclosing stage; a stage
            that is not within another is hidden, so that functions of the library are silent unless asked.
        done: work that an earlier call has finished, which does not count for the speed.
    """
    outer = _enclosing.get()
    shown = outer if show is None else show and outer is not False
    token = _enclosing.set(shown)
    progress = _display.open() if shown else None
    try:
        if progress is None:
            yield Stage()
        else:
            task = progress.add_task(label, total=total, completed=done, unit=unit, before=done, note="")
            try:
                yield Stage(progress, task)
            finally:
                progress.remove_task(task)
                _display.close()
    finally:
        _enclosing.reset(token)


def report(text: str) -> None:
    """Print a line about the work on stderr, above the display; not if quiet, or within a hidden stage."""
    if not _quiet and _enclosing.get() is not False:
        print(text, file=sys.stderr)


class _Display:
    """The one display of the process: started by the first stage, removed after the last."""

    def __init__(self) -> None:
        self._lock, self._stages = Lock(), 0
        self._progress: Progress | None = None

    def open(self) -> "Progress | None":
        """The display, for one more stage; None if nothing is to be shown."""
        if _quiet or not _can_show():
            return None
        with self._lock:
            if self._progress is None:
                self._progress = new_display()
                self._progress.start()
            self._stages += 1
            return self._progress

    def close(self) -> None:
        """A stage has ended."""
        with self._lock:
            self._stages -= 1
            if self._progress is not None and not self._stages:
                self._progress.stop()
                self._progress = None


def new_display(**options: Any) -> "Progress":
    """The columns of all progress; `options` are those of rich's `Progress`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Column(ProgressColumn):
        def __init__(self, text: Any) -> None:
            super().__init__()
            self._text = text

        def render(self, task: Task) -> Text:
            return Text(self._text(task))

    def count(task: Task) -> str:
        return f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}" if task.total else ""

    def left(task: Task) -> str:
        seconds = seconds_left(task.elapsed or 0, task.fields["before"], task.completed, task.total)
        return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"

    columns = Column(lambda task: task.description), BarColumn(20), Column(count), TimeElapsedColumn(), Column(left)
    # A line on stdout goes above the display only if both are the same terminal; otherwise it must reach its file.
    options = {"console": Console(stderr=True), "transient": True, "redirect_stdout": sys.stdout.isatty()} | options
    return Progress(*columns, TextColumn("{task.fields[note]}", markup=False), **options)


def seconds_left(elapsed: float, before: float, completed: float, total: float | None) -> float | None:
    """The time left at the mean speed since the stage began; None before the first unit of work is done."""
    if not total or completed <= before:
        return None
    return elapsed * max(total - completed, 0) / (completed - before)


def _can_show() -> bool:
    from rich.console import Console

    console = Console(stderr=True)
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun's processes share a terminal
    return is_first and (console.is_terminal or console.is_jupyter)


_display = _Display()
