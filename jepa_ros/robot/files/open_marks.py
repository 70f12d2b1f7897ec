"""Open TODO marks of a robot's file: with one of them nothing moves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from jepa_ros.errors import InputError
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.config import find_base_file

_MARK = re.compile(r"\bTODO\b[\s:]*(.*)")  # not the TODOs of a sentence about them


class OpenMark(NamedTuple):
    """A mark in a robot's file: the file, the number of its line, and what is to be done."""

    path: Path
    line: int
    text: str


def find_open_marks(path: Path) -> list[OpenMark]:
    """Return the open marks of a robot's file, and of the file that it is derived from by `same_as`, in order.

    Raises InputError where a file cannot be read.
    """
    files = [path, *filter(None, [find_base_file(path)])]
    return [mark for file in files for mark in _marks_in(file)]


def require_finished(robot: str | Path) -> None:
    """Raise InputError, in one line with the file and its first open mark, where a robot's file has one.

    robot: name or path, as in the parameter `robot`.
    """
    marks = find_open_marks(resolve_robot(robot))
    if not marks:
        return
    first = marks[0]
    what = first.text.rstrip(".") or "no text"
    others = f" and {len(marks) - 1} more" if len(marks) > 1 else ""
    raise InputError(
        f"robot {first.path}: line {first.line}: open TODO: {what}{others}; nothing moves before it is resolved and "
        f"deleted, see `jepa_ros robot check {robot}`"
    )


def _marks_in(path: Path) -> list[OpenMark]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"robot {path}: cannot be read: {error.strerror}") from None
    found = ((number, _MARK.search(line)) for number, line in enumerate(lines, start=1))
    return [OpenMark(path, number, mark[1].strip()) for number, mark in found if mark]
