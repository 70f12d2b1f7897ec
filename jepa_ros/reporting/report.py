"""One self-contained HTML page with the results of a long command: text, figures, tables, plots and pictures.

Nothing is loaded from elsewhere: plots are inline SVG that takes the page's own colours (light or dark, as the reader's
system asks), pictures are inline PNG or JPEG. Everything a caller passes as text is escaped.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.reporting import page
from jepa_ros.reporting.plots import svg_of
from jepa_ros.text_files import write_atomically

# Below this many pixels a side a picture is shown in blocks and kept without loss: it is what the model sees.
_SMALL = 128
_NUMBER = " class=number"  # columns of numbers are set flush right


class Report:
    """Collects parts from top to bottom; ``write`` makes the page. The other methods return the report itself."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._ids = itertools.count()

    def section(self, heading: str) -> Report:
        """A heading; what follows belongs to it."""
        self._parts.append(f"<h2>{html.escape(heading)}</h2>")
        return self

    def text(self, text: str) -> Report:
        """Paragraphs with a little of Markdown: ``- `` lists, ``**bold**``, `` `code` `` and fenced code blocks."""
        self._parts.append(markdown(text))
        return self

    def figures(self, values: Mapping[str, Any], good: Mapping[str, bool] | None = None) -> Report:
        """Headline figures as tiles: ``{"reached": "19 of 20"}``; ``good`` colours some (True green, False red)."""
        tiles = []
        for label, value in values.items():
            mark = {True: " good", False: " bad"}.get((good or {}).get(label), "")
            tiles.append(
                f'<div class="tile{mark}"><div class="value">{html.escape(show(value))}</div>'
                f'<div class="label">{html.escape(label)}</div></div>'
            )
        self._parts.append(f'<div class="tiles">{"".join(tiles)}</div>')
        return self

    def table(self, rows: Iterable[Sequence[Any] | Mapping[str, Any]], columns: Sequence[str] | None = None) -> Report:
        """A table; ``rows`` are sequences in the order of ``columns``, or mappings (``columns`` may be left out)."""
        rows = list(rows)
        if columns is None:
            if not all(isinstance(row, Mapping) for row in rows):
                raise InputError("report: table: expected columns, as the rows are not mappings; found None")
            columns = list(dict.fromkeys(key for row in rows for key in row))
        body = []
        for row in rows:
            cells = [row.get(c) for c in columns] if isinstance(row, Mapping) else list(row)
            if len(cells) != len(columns):
                raise InputError(f"report: table: expected {len(columns)} cells a row, found {len(cells)}: {cells}")
            body.append(cells)
        numeric = [any(map(_is_number, column)) for column in zip(*body, strict=True)] or [False] * len(columns)
        head = "".join(f"<th{_NUMBER * n}>{html.escape(str(c))}</th>" for c, n in zip(columns, numeric, strict=True))
        lines = "".join(_row(cells, numeric) for cells in body)
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        )
        return self

    def plot(self, figure, caption: str = "") -> Report:
        """A Matplotlib figure as inline SVG (``jepa_ros.reporting.plots`` has ready-made ones); it is closed."""
        return self.svg(svg_of(figure, salt=f"plot{next(self._ids)}"), caption)

    def svg(self, markup: str, caption: str = "") -> Report:
        """An SVG drawing made by the caller. The only part that is not escaped: escape foreign text in it."""
        if "<svg" not in markup:
            raise InputError(f"report: svg: expected an <svg> element, found {markup[:40]!r}")
        self._parts.append(f'<figure class="plot">{markup[markup.index("<svg") :]}{_caption(caption)}</figure>')
        return self

    def images(self, items: Iterable[tuple[str, Any]], width: int = 220) -> Report:
        """A grid of ``(caption, picture)``; a picture is (H, W, 3) or (H, W) uint8, or several, side by side.

        ``width`` is the least width of a picture on the page, in CSS pixels.
        """
        cards, widest = [], width
        for caption, pictures in items:
            pictures = [pictures] if isinstance(pictures, np.ndarray) else list(pictures)
            tags = "".join(_image(p, caption) for p in pictures)
            cards.append(f'<figure class="card"><div class="pair">{tags}</div>{_caption(caption)}</figure>')
            widest = max(widest, len(pictures) * width)
        self._parts.append(f'<div class="grid" style="--least:{widest}px">{"".join(cards)}</div>')
        return self

    def write(self, path: str | os.PathLike) -> Path:
        """Write the page at ``path`` in one step and return the path."""
        return write_atomically(path, page.html_page(self.title, self.subtitle, "\n".join(self._parts)))


def show(value: Any) -> str:
    """A value as a person reads it: numbers with four significant digits, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    return str(value)


def markdown(text: str) -> str:
    """The small part of Markdown that ``Report.text`` takes, as HTML; everything else is escaped."""
    out = []
    fences = re.split(r"^```.*$", text, flags=re.MULTILINE)
    for i, piece in enumerate(fences):
        if i % 2:
            out.append(f"<pre>{html.escape(piece.strip(chr(10)))}</pre>")
            continue
        for block in re.split(r"\n\s*\n", piece.strip()):
            lines = block.split("\n")
            if not block.strip():
                continue
            if all(line.lstrip().startswith("- ") for line in lines):
                items = "".join(f"<li>{_inline(line.lstrip()[2:])}</li>" for line in lines)
                out.append(f"<ul>{items}</ul>")
            else:
                out.append(f"<p>{_inline(block)}</p>")
    return "\n".join(out)


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _row(cells: Sequence[Any], numeric: Sequence[bool]) -> str:
    tds = (f"<td{_NUMBER * n}>{html.escape(show(cell))}</td>" for cell, n in zip(cells, numeric, strict=True))
    return f"<tr>{''.join(tds)}</tr>"


def _caption(caption: str) -> str:
    return f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""


def _image(picture: np.ndarray, alt: str) -> str:
    from PIL import Image  # lazily: pages without pictures need no decoder

    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InputError(f"report: image {alt!r}: expected (H, W, 3) uint8, found {picture.shape} {picture.dtype}")
    small = max(picture.shape[:2]) <= _SMALL
    kind, options = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 88})
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = picture.shape[:2]
    return (
        f'<img class="{"blocks" if small else ""}" width="{width}" height="{height}" '
        f'alt="{html.escape(alt, quote=True)}" src="data:image/{kind};base64,{data}">'
    )
