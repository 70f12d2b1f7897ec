"""One self-contained HTML page with the results of a command: text, tiles, tables, plots and images.

Nothing is loaded from elsewhere: plots are inline SVG in the page's own colours (light or dark, as the reader's system
is set), images are inline PNG or JPEG. All text that a caller passes is escaped.
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
from jepa_ros.reporting.plots import figure_to_svg
from jepa_ros.reporting.result import format_value
from jepa_ros.text_files import write_atomically

_SMALL_IMAGE_PX = 128  # up to this side length an image is what the model sees: stored without loss, drawn in blocks
_NUMBER = " class=number"  # columns of numbers are right-aligned
_STYLE = """
:root { color-scheme: light dark; --ink:#1b1f27; --soft:#5d6675; --faint:#c4cad4; --line:#e3e7ee; --paper:#ffffff;
  --back:#f5f6f9; --accent:#2f62e8; --good:#12805f; --bad:#c03636; }
@media (prefers-color-scheme: dark) { :root { --ink:#e7eaf0; --soft:#9aa4b5; --faint:#4a5262; --line:#2b313c;
  --paper:#181c23; --back:#0f1217; --accent:#7fa2ff; --good:#4cc9a0; --bad:#ff8080; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--back); color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
  "Helvetica Neue",Arial,sans-serif; }
main { max-width:1080px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:1.75rem; line-height:1.2; margin:0 0 4px; letter-spacing:-0.01em; }
h2 { font-size:1.15rem; margin:40px 0 12px; }
p, ul { max-width:72ch; margin:10px 0; }
.subtitle { color:var(--soft); margin:0 0 20px; }
code, pre { font:0.88em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace; }
code { background:var(--line); padding:1px 5px; border-radius:4px; overflow-wrap:anywhere; }
pre { background:var(--paper); border:1px solid var(--line); border-radius:10px; padding:12px 14px; overflow-x:auto; }
.tiles { display:grid; grid-template-columns:repeat(auto-fill,minmax(150px,1fr)); gap:12px; margin:16px 0; }
.tile, .card, .plot, .scroll { background:var(--paper); border:1px solid var(--line); border-radius:12px; }
.tile { padding:14px 16px; }
.tile .value { font-size:1.4rem; font-weight:650; font-variant-numeric:tabular-nums; line-height:1.25; }
.tile .label { color:var(--soft); font-size:0.85rem; }
.tile.good .value { color:var(--good); } .tile.bad .value { color:var(--bad); }
.plot { margin:14px 0; padding:14px; overflow-x:auto; }
.plot svg { display:block; width:100%; height:auto; max-height:640px; min-width:440px; }
.plot svg text { font-family:inherit !important; }
figcaption { color:var(--soft); font-size:0.85rem; margin-top:8px; }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(100%,var(--least)),1fr)); gap:14px;
  margin:14px 0; }
.card { margin:0; padding:10px; }
.pair { display:flex; gap:6px; } .pair img { flex:1 1 0; min-width:0; width:100%; height:auto; border-radius:6px;
  display:block; }
img.blocks { image-rendering:pixelated; }
.scroll { overflow-x:auto; margin:14px 0; }
table { border-collapse:collapse; width:100%; font-size:0.9rem; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:7px 12px; border-bottom:1px solid var(--line); white-space:nowrap; }
th { color:var(--soft); font-weight:600; } tr:last-child td { border-bottom:0; } .number { text-align:right; }
@media (max-width:520px) { main { padding:20px 14px 48px; } .tiles { grid-template-columns:repeat(2,1fr); } }
"""


class Report:
    """The parts of a page from top to bottom. `write` writes the page; the other methods return the report itself."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._ids = itertools.count()

    def section(self, heading: str) -> Report:
        """Add a heading."""
        self._parts.append(f"<h2>{html.escape(heading)}</h2>")
        return self

    def text(self, text: str) -> Report:
        """Add paragraphs of simple Markdown: ``- `` lists, ``**bold**``, `` `code` `` and fenced code blocks."""
        self._parts.append(markdown_to_html(text))
        return self

    def tiles(self, values: Mapping[str, Any], good: Mapping[str, bool] | None = None) -> Report:
        """Add the main results as tiles: `{"reached": "19 of 20"}`; `good` colours some (True green, False red)."""
        tiles = []
        for label, value in values.items():
            mark = {True: " good", False: " bad"}.get((good or {}).get(label), "")
            tiles.append(
                f'<div class="tile{mark}"><div class="value">{html.escape(format_value(value))}</div>'
                f'<div class="label">{html.escape(label)}</div></div>'
            )
        self._parts.append(f'<div class="tiles">{"".join(tiles)}</div>')
        return self

    def table(self, rows: Iterable[Sequence[Any] | Mapping[str, Any]], columns: Sequence[str] | None = None) -> Report:
        """Add a table; `rows` are sequences in the order of `columns`, or mappings (`columns` optional)."""
        rows = list(rows)
        if columns is None:
            if not all(isinstance(row, Mapping) for row in rows):
                raise InputError("report: table: columns are missing and the rows are not mappings")
            columns = list(dict.fromkeys(key for row in rows for key in row))
        body = []
        for row in rows:
            cells = [row.get(c) for c in columns] if isinstance(row, Mapping) else list(row)
            if len(cells) != len(columns):
                raise InputError(f"report: table: {len(cells)} cells in a row of {len(columns)} columns: {cells}")
            body.append(cells)
        numeric = [any(map(_is_number, column)) for column in zip(*body, strict=True)] or [False] * len(columns)
        head = "".join(f"<th{_NUMBER * n}>{html.escape(str(c))}</th>" for c, n in zip(columns, numeric, strict=True))
        lines = "".join(_row(cells, numeric) for cells in body)
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        )
        return self

    def plot(self, figure, caption: str = "") -> Report:
        """Add a Matplotlib figure as inline SVG; `jepa_ros.reporting.plots` has ready-made ones."""
        markup = figure_to_svg(figure, salt=f"plot{next(self._ids)}")
        self._parts.append(f'<figure class="plot">{markup}{_caption(caption)}</figure>')
        return self

    def images(self, items: Iterable[tuple[str, Any]], width: int = 220) -> Report:
        """Add a grid of `(caption, image)`; an image is (H, W, 3) or (H, W) uint8, or several of these, side by side.

        `width` is the smallest width of an image on the page, in CSS pixels.
        """
        cards, widest = [], width
        for caption, images in items:
            images = [images] if isinstance(images, np.ndarray) else list(images)
            tags = "".join(_image(image, caption) for image in images)
            cards.append(f'<figure class="card"><div class="pair">{tags}</div>{_caption(caption)}</figure>')
            widest = max(widest, len(images) * width)
        self._parts.append(f'<div class="grid" style="--least:{widest}px">{"".join(cards)}</div>')
        return self

    def video(self, name: str, caption: str = "") -> Report:
        """Add a player of the video file `name`, which lies beside the page, and a link to it."""
        name = html.escape(name, quote=True)
        player = f'<video controls preload="metadata" src="{name}" style="width:100%"></video>'
        self._parts.append(f'<figure class="plot">{player}{_caption(caption)}<a href="{name}">{name}</a></figure>')
        return self

    def write(self, path: str | os.PathLike) -> Path:
        """Write the page to `path` atomically and return the path."""
        return write_atomically(path, _html_page(self.title, self.subtitle, "\n".join(self._parts)))


def with_unit(value: float | None, unit: str, factor: float = 1.0) -> str | None:
    """Return `factor` times a value with three significant digits and its unit; None, shown as a dash, for None."""
    return None if value is None else f"{factor * value:.3g} {unit}".rstrip()


def markdown_to_html(text: str) -> str:
    """Convert the simple Markdown that `Report.text` accepts to HTML; everything else is escaped."""
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
    tds = (f"<td{_NUMBER * n}>{html.escape(format_value(cell))}</td>" for cell, n in zip(cells, numeric, strict=True))
    return f"<tr>{''.join(tds)}</tr>"


def _caption(caption: str) -> str:
    return f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""


def _image(image: np.ndarray, alt: str) -> str:
    from PIL import Image  # lazily: pages without images do not need it

    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"report: image {alt!r}: must be (H, W, 3) uint8, is {image.shape} {image.dtype}")
    small = max(image.shape[:2]) <= _SMALL_IMAGE_PX
    kind, options = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 88})
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = image.shape[:2]
    return (
        f'<img class="{"blocks" if small else ""}" width="{width}" height="{height}" '
        f'alt="{html.escape(alt, quote=True)}" src="data:image/{kind};base64,{data}">'
    )


def _html_page(title: str, subtitle: str, body: str) -> str:
    """Return the whole page; `title` and `subtitle` are escaped, `body` is HTML."""
    below = f'<p class="subtitle">{html.escape(subtitle)}</p>' if subtitle else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{html.escape(title)}</h1>{below}\n{body}\n</main></body></html>\n"
    )
