"""One thing that was looked at, and what is to be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is; the worst one decides the exit code."""

    OK = 0
    """As it should be."""
    WARNING = 1
    """The arm would move, but worse than it could, or nobody can tell."""
    ERROR = 2
    """The arm would not move, or would be moved by what is wrong."""


@dataclass(frozen=True)
class Finding:
    """check: one word for scripts. what: the thing that was looked at. expected, advice: empty where all is well."""

    level: Level
    check: str
    what: str
    expected: str
    found: str
    advice: str = ""

    def line(self) -> str:
        """One line for a person."""
        name = self.level.name.lower()
        if self.level is Level.OK:
            return f"{name:<7} {self.what}: {self.found}"
        return f"{name:<7} {self.what}: expected {self.expected}, found {self.found}. {self.advice}"


def fine(check: str, what: str, found: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, what, "", found)


def warning(check: str, what: str, expected: str, found: str, advice: str) -> Finding:
    """It could be better."""
    return Finding(Level.WARNING, check, what, expected, found, advice)


def error(check: str, what: str, expected: str, found: str, advice: str) -> Finding:
    """It will not do."""
    return Finding(Level.ERROR, check, what, expected, found, advice)


def listed(names, most: int = 6) -> str:
    """Names for a person: the first few of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"
