"""Progress of long work: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

LINE_EVERY = 15.0  # s between lines in a log


class LongWork:
    """A context manager that shows how far one or more tasks are; on stderr, so that results can be piped.

    quiet: show nothing; for all but one of several processes that do the same.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(file=sys.stderr)
        self._quiet, self._live = quiet, console.is_terminal and not quiet
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns, TimeLeftColumn(), TextColumn("{task.fields[note]}"), console=console, disable=not self._live
        )
        self._printed = -LINE_EVERY

    def __enter__(self) -> LongWork:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def add(self, what: str, total: int | None, completed: int = 0) -> TaskID:
        """A task of `total` units (None: not known yet)."""
        return self._bar.add_task(what, total=total, completed=completed, note="")

    def update(self, task: TaskID, completed: int, note: str = "", total: int | None = None) -> None:
        """So much of a task is done."""
        self._bar.update(task, completed=completed, note=note, **({} if total is None else {"total": total}))
        entry = self._bar.tasks[task]
        last = entry.total is not None and completed >= entry.total
        if not self._live and not self._quiet and (last or time.monotonic() - self._printed >= LINE_EVERY):
            self._printed = time.monotonic()
            of = "" if entry.total is None else f" of {entry.total:.0f}"
            sys.stderr.write(f"{entry.description}: {completed}{of}  {note}".rstrip() + "\n")
            sys.stderr.flush()
