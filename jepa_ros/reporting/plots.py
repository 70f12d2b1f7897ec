"""Plots for reports: Matplotlib figures whose inline SVG takes the light or dark colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Readable on white and on near-black; a single series gets the first one.
COLOURS = ("#4c7dff", "#e8743b", "#18a37c", "#d9488b", "#8f66d9", "#a38b1d", "#3aa6c9", "#8a8f98")

INK, FAINT = "#010203", "#040506"
"""Placeholders for the page's colours of text and of thin lines; `figure_to_svg` replaces them."""


def page_style() -> dict[str, Any]:
    """Return the Matplotlib settings of all plots; use as `with matplotlib.rc_context(plots.page_style()):`."""
    from cycler import cycler

    return {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "figure.facecolor": "none",
        "figure.constrained_layout.use": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "savefig.facecolor": "none",
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }


def file_style() -> dict[str, Any]:
    """Return the settings for an image file, which has no page to take colours from: dark on white."""
    colours = {INK: "#1b1f27", FAINT: "#c4cad4"}
    plain = {key: colours.get(value, value) if isinstance(value, str) else value for key, value in page_style().items()}
    return plain | {"figure.facecolor": "white", "savefig.facecolor": "white"}


def figure(columns: int = 1, rows: int = 1, size: tuple[float, float] | None = None):
    """Return `(figure, axes)`: a figure with `rows × columns` axes in `page_style`, off screen.

    `axes` is one Axes or an array of them. `size` is (width, height) in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(page_style()):
        fig = Figure(figsize=size or (8.0, 3.0 * rows))
        FigureCanvasSVG(fig)
        return fig, fig.subplots(rows, columns)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str = "",
    y: str = "",
    title: str = "",
    log_y: bool = False,
    level: tuple[float, str] | None = None,
    faint: bool = False,
):
    """Return a figure with a line for each `name: (xs, ys)`; `level` adds a labelled dashed horizontal line.

    `faint` draws many lines of one kind thin, in one colour and without a legend.
    """
    fig, ax = figure()
    for name, (xs, ys) in series.items():
        if faint:
            ax.plot(xs, ys, color=COLOURS[0], linewidth=1.0, alpha=0.55)
        else:
            ax.plot(xs, ys, label=name)
    if level is not None:
        ax.axhline(level[0], color=COLOURS[1], linewidth=1.2, linestyle=(0, (4, 3)), label=level[1])
    if log_y:
        ax.set_yscale("log")
    ax.set(xlabel=x, ylabel=y)
    _title(ax, title)
    if level is not None or (not faint and len(series) > 1):
        ax.legend(fontsize=9)
    return fig


def histogram(
    samples: Sequence[float] | Mapping[str, Sequence[float]],
    x: str = "",
    title: str = "",
    marks: Mapping[str, float] | None = None,
):
    """Return a histogram; several named samples are drawn over each other; `marks` are labelled vertical lines."""
    named = samples if isinstance(samples, Mapping) else {"": samples}
    named = {name: np.asarray(list(v), float) for name, v in named.items()}
    named = {name: v[np.isfinite(v)] for name, v in named.items()}
    everything = np.concatenate(list(named.values())) if named else np.zeros(0)
    fig, ax = figure(size=(8.0, 2.6))
    if everything.size:
        edges = np.histogram_bin_edges(everything, bins=40)
        for name, values in named.items():
            ax.hist(values, bins=edges, label=name or None, alpha=0.85 if len(named) == 1 else 0.6)
    for i, (name, value) in enumerate((marks or {}).items()):
        ax.axvline(value, color=COLOURS[1 + i % (len(COLOURS) - 1)], linewidth=1.4, linestyle=(0, (4, 3)), label=name)
    ax.set(xlabel=x, ylabel="count")
    _title(ax, title)
    if marks or any(named):
        ax.legend(fontsize=9)
    return fig


def figure_to_svg(fig, salt: str) -> str:
    """Return the figure as an `<svg>` element that takes its colours and font from the page.

    `salt` keeps the element ids of several figures on one page distinct, and equal from run to run.
    """
    import matplotlib

    for legend in filter(None, (axes.get_legend() for axes in fig.axes)):
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set_color(INK)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' id="(?!' + salt + r')([^"]+)"', rf' id="{salt}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)(?!' + salt + r")", rf"\1{salt}-", text)
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")


def _title(ax, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
