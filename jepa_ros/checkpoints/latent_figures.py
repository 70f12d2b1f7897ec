"""Pictures of a latent space: each draws one thing on axes that it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.checkpoints.formatting import millimetres, told
from jepa_ros.checkpoints.latent_space import LatentSpace
from jepa_ros.reporting import plots
from jepa_ros.text_files import atomic_path
from jepa_ros.world_model.config import ModelConfig

POINTS = 4000  # drawn at most
QUERIES, NEIGHBOURS = 6, 5
FAR = 1e30  # scales beyond this stand for "never calibrated"


def draw_plane(axes, space: LatentSpace) -> None:
    """Three axes: the two principal axes of the latents, coloured by the tool's place and by the time."""
    import matplotlib

    rows = np.random.default_rng(0).permutation(len(space.frames))[:POINTS]
    at, shares = space.plane
    colours = (
        ("tool x (cm)", 100 * space.tool[:, 0], "viridis"),
        ("tool y (cm)", 100 * space.tool[:, 1], "viridis"),
        ("time in the episode (s)", space.time, "plasma"),
    )
    for ax, (label, values, colormap) in zip(axes, colours, strict=True):
        points = ax.scatter(
            *at[rows].T, c=values[rows], s=4, cmap=matplotlib.colormaps[colormap], linewidths=0, rasterized=True
        )
        ax.figure.colorbar(points, ax=ax, pad=0.02).outline.set_visible(False)
        ax.set_title(f"By {label}", loc="left", fontsize=11, fontweight="bold")
        ax.set(xlabel=f"axis 1 ({100 * shares[0]:.0f} % of the variance)", ylabel=f"axis 2 ({100 * shares[1]:.0f} %)")


def draw_probe(ax, space: LatentSpace, found: dict[str, Any]) -> None:
    """What the linear probe reads of the tool's place on test episodes, over where it is."""
    tool = 100 * space.tool[space.test]
    limits = [float(tool.min()), float(tool.max())]
    ax.plot(limits, limits, color=plots.COLOURS[-1], lw=1, label="exact")
    for axis, name in enumerate("xy"):
        ax.plot(tool[:, axis], 100 * space.probed[:, axis], ".", ms=3, alpha=0.5, label=name, rasterized=True)
    r2 = told(found["probe"]["r2"], "{:.4f}")
    ax.set_title(f"Linear probe of the tool, test: R² {r2}", loc="left", fontsize=11, fontweight="bold")
    ax.set(xlabel="tool (cm)", ylabel="read off the latent (cm)")
    _legend(ax)


def draw_spectrum(ax, space: LatentSpace, found: dict[str, Any]) -> None:
    """Singular values of the latents, over the largest, and the effective rank."""
    values = np.maximum(space.spectrum / max(space.spectrum[0], 1e-30), 1e-8)
    ax.plot(np.arange(1, len(values) + 1), values, ".-" if len(values) <= 64 else "-", label="singular values")
    if (rank := found["effective_rank"]) is not None:
        ax.axvline(rank, color=plots.COLOURS[1], lw=1.2, ls=(0, (4, 3)), label=f"effective rank {rank:.1f}")
    ax.set_title(f"Spectrum of {found['dimensions']} dimensions", loc="left", fontsize=11, fontweight="bold")
    ax.set(xlabel="number", ylabel="over the largest", yscale="log")
    _legend(ax)


def draw_distance(ax, space: LatentSpace, config: ModelConfig) -> None:
    """Latent distance over tool distance of random pairs, and its median."""
    apart, latent = space.pairs
    positive = latent > 0  # the axis is logarithmic
    apart, latent = 100 * apart[positive], latent[positive]
    ax.plot(apart, latent, ".", ms=2, alpha=0.3, rasterized=True)
    edges = np.quantile(apart, np.linspace(0, 1, 21)) if len(apart) else np.zeros(0)
    bins = [(lo <= apart) & (apart <= hi) for lo, hi in zip(edges[:-1], edges[1:], strict=True)]
    medians = [(np.median(apart[b]), np.median(latent[b])) for b in bins if b.any()]
    if medians:
        ax.plot(*np.array(medians).T, color=plots.COLOURS[1], label="median")
    if config.distance.far < FAR:
        ax.axhline(config.distance.far, lw=1, ls=":", color=plots.COLOURS[2], label="flat from here")
        ax.axhline(config.distance.tolerance, lw=1, ls="--", color=plots.COLOURS[3], label="counts as reached")
    ax.set_title("Latent distance of pairs of frames", loc="left", fontsize=11, fontweight="bold")
    ax.set(xlabel="tool distance (cm)", ylabel="mean square over the latent", yscale="log")
    _legend(ax)


def neighbour_rows(space: LatentSpace) -> list[tuple[int, np.ndarray]]:
    """(row of a test frame, rows of the nearest frames of other episodes, nearest first), far from one another."""
    return [(int(space.kept[number]), space.nearest(number, NEIGHBOURS)[0]) for number in space.scattered(QUERIES)]


def apart(space: LatentSpace, row: int, other: int) -> str:
    """How far the tools of two frames are from each other, in words."""
    return millimetres(float(np.linalg.norm(space.tool[row] - space.tool[other])))


def draw_neighbours(ax, space: LatentSpace) -> None:
    """Test frames with their nearest ones beside them, two such rows side by side."""
    width, height = NEIGHBOURS + 1.4, 1.3  # in frames
    for place, (row, near) in enumerate(neighbour_rows(space)):
        line, offset = divmod(place, 2)
        for column, shown in enumerate([row, *near]):
            left, bottom = offset * width + 1.05 * column, -line * height
            picture = space.picture(shown)
            top = bottom + picture.shape[0] / picture.shape[1]
            ax.imshow(picture, extent=(left, left + 1, bottom, top))
            words = apart(space, row, shown) if column else "test frame"
            ax.text(left + 0.5, top + 0.04, words, ha="center", fontsize=8)
    ax.set(xlim=(0, 2 * width - 0.1), ylim=((1 - QUERIES // 2) * height - 0.05, 1.25))
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title("Nearest frames of other episodes by the latent, and how far their tools are", fontsize=11)


def write_picture(path: Path, config: ModelConfig, space: LatentSpace, found: dict[str, Any]) -> None:
    """latent.png: everything on one picture, written whole or not at all."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(plots.file_style()):
        figure = Figure(figsize=(14, 12.5))
        FigureCanvasAgg(figure)
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1, 1, 1.05))
        draw_plane(top.subplots(1, 3), space)
        first, second, third = middle.subplots(1, 3)
        draw_probe(first, space, found)
        draw_spectrum(second, space, found)
        draw_distance(third, space, config)
        draw_neighbours(bottom.subplots(), space)
        figure.suptitle(f"Latent space of {config.name}", fontsize=14, fontweight="bold")
        with atomic_path(path) as partial:
            figure.savefig(partial, format="png", dpi=110)


def _legend(ax) -> None:
    import matplotlib

    legend = ax.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(matplotlib.rcParams["text.color"])
