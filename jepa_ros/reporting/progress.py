"""Progress of long commands on stderr: a live bar on a terminal, a line every 15 s in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_PERIOD = 15.0  # s between lines in a log


class ProgressDisplay:
    """Shows how far one or more tasks are. A context manager; on stderr, so that results on stdout can be piped.

    quiet: show nothing, for example in all but one of several equal processes.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(file=sys.stderr)
        self._quiet, self._live = quiet, console.is_terminal and not quiet
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console, disable=not self._live
        )
        self._printed = -LOG_PERIOD

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def add(self, what: str, total: int | None, completed: int = 0) -> TaskID:
        """Add a task of `total` units (None: not known yet) and return its id."""
        return self._bar.add_task(what, total=total, completed=completed, note="")

    def update(self, task: TaskID, completed: int, note: str = "", total: int | None = None) -> None:
        """Set how many units of a task are done; `note` is shown behind the bar."""
        self._bar.update(task, completed=completed, note=note, **({} if total is None else {"total": total}))
        entry = self._bar.tasks[task]
        last = entry.total is not None and completed >= entry.total
        if not self._live and not self._quiet and (last or time.monotonic() - self._printed >= LOG_PERIOD):
            self._printed = time.monotonic()
            of = "" if entry.total is None else f" of {entry.total:.0f}"
            sys.stderr.write(f"{entry.description}: {completed}{of}  {note}".rstrip() + "\n")
            sys.stderr.flush()
