"""The end of a command on the terminal: its result in a few lines, tables that fit, and the paths it wrote."""

from __future__ import annotations

import numbers
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MIN_WIDTH = 80  # characters
_NARROWEST_COLUMN = 8
_GAP = "  "
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?(%|s|ms|m|mm|Hz))?|–|")


def print_result(
    title: str,
    lines: Iterable[str | tuple[str, Any]] = (),
    paths: Iterable[Path | str] = (),
    table: tuple[Sequence[str], Iterable[Sequence[Any]]] | None = None,
) -> None:
    """Print a command's result on stdout: the title, a table, lines, and the paths that it wrote.

    lines: text, or (label, value), whose values are aligned; numbers get four significant digits. table: columns and
    rows, as for `format_table`.

        evaluate sim: openarm_reach, 200 goals
          reached          198 of 200 (95 % confidence interval 96.4 to 99.7 %)
          random actions   3 of 200
        wrote runs/evaluate/summary.json
              runs/evaluate/report.html
    """
    out = textwrap.wrap(title, terminal_width(), break_long_words=False, break_on_hyphens=False)
    if table is not None:
        out += [f"  {line}" for line in format_table(*table, width=terminal_width() - 2)]
    out += _indented(list(lines))
    for number, path in enumerate(paths):
        out.append(f"{'wrote ' if number == 0 else '      '}{path}")
    print("\n".join(out), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print `format_table`, after a title if there is one."""
    print("\n".join([title] * bool(title) + format_table(columns, rows)), flush=True)


def format_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], width: int | None = None) -> list[str]:
    """Return the lines of a table that is at most `width` characters wide (default: the terminal, 80 in a pipe).

    Cells too long for that are wrapped, at spaces where possible; columns of numbers are set flush right.
    """
    width = terminal_width() if width is None else width
    cells = [[format_value(cell) for cell in row] for row in rows]
    table = list(zip(columns, *cells, strict=True))
    natural = [max(map(len, column)) for column in table]
    words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in table]
    widths = _shrink(natural, words, width - len(_GAP) * (len(columns) - 1))
    right = [bool(cells) and all(_NUMBER.fullmatch(row[k]) for row in cells) for k in range(len(columns))]
    lines = [*_wrapped_row(columns, widths, right), _GAP.join("-" * w for w in widths)]
    for row in cells:
        lines += _wrapped_row(row, widths, right)
    return lines


def format_value(value: Any) -> str:
    """Return a value as text for people: numbers with four significant digits, None as a dash, a bool as yes or no."""
    if value is None:
        return "–"
    if type(value).__name__ in ("bool", "bool_"):  # Python's and numpy's, which is not loaded for this
        return "yes" if value else "no"
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{value:.4g}"
    return str(value)


def terminal_width() -> int:
    """Return the width of the terminal in characters, at least 80; 80 where there is none."""
    return max(MIN_WIDTH, shutil.get_terminal_size((MIN_WIDTH, 24)).columns)


def _indented(lines: list[str | tuple[str, Any]]) -> list[str]:
    labels = [len(line[0]) for line in lines if not isinstance(line, str)]
    label_width, out = max(labels, default=0), []
    for line in lines:
        head, text = ("  ", line) if isinstance(line, str) else (f"  {line[0]:<{label_width}}  ", format_value(line[1]))
        out += textwrap.wrap(
            text,
            terminal_width(),
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]
    return out


def _shrink(natural: list[int], words: list[int], room: int) -> list[int]:
    """Return column widths that sum to `room` or less: shrink to the longest word first, then below it."""
    widths = list(natural)
    for floors in (words, [_NARROWEST_COLUMN] * len(words)):
        while sum(widths) > room:
            spare = [width - max(floor, _NARROWEST_COLUMN) for width, floor in zip(widths, floors, strict=True)]
            if max(spare) <= 0:
                break
            widest = max((k for k, s in enumerate(spare) if s > 0), key=lambda k: widths[k])
            widths[widest] -= 1
    return widths


def _wrapped_row(cells: Sequence[str], widths: list[int], right: list[bool]) -> list[str]:
    parts = [textwrap.wrap(cell, w, break_on_hyphens=False) or [""] for cell, w in zip(cells, widths, strict=True)]
    lines = []
    for number in range(max(map(len, parts))):
        texts = [part[number] if number < len(part) else "" for part in parts]
        set_out = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        lines.append(_GAP.join(set_out).rstrip())
    return lines
