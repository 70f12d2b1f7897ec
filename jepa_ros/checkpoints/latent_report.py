"""`jepa_ros models inspect --data`: latent space of a model on recorded episodes: metrics, figures, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.bags.cameras import IMAGE_TYPES, namespace, plain_topic
from jepa_ros.checkpoints.formatting import (
    describe_facts,
    describe_latent_metrics,
    describe_robots,
    format_millimetres,
    format_optional,
)
from jepa_ros.checkpoints.latent_space import LatentSpace, encode_episodes, measure_latent_space, read_test_and_others
from jepa_ros.datasets.recorded_episodes import open_recording
from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import after_summary
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary
from jepa_ros.text_files import atomic_path
from jepa_ros.world_model.checkpoint import choose_robot, load_checkpoint
from jepa_ros.world_model.config import ModelConfig

MAX_POINTS = 4000  # of a scatter plot
QUERIES, NEIGHBOURS = 6, 5
UNCALIBRATED = 1e30  # distance scales beyond this were never calibrated


def report_latent_space(
    directory: Path,
    facts: dict[str, Any],
    data: Path,
    out: Path,
    limit: int,
    robot: str | None,
    cameras: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write summary.json, report.html and latent.png to `out`; return the metrics.

    facts: of facts.read_facts. limit: episodes to read. robot: whose tool the bag shows, default: the first that the
    model was trained for. cameras: image topics in the order of the model's views. Shows progress. Raises InputError
    where model, bag or robot cannot be used.
    """
    started = time.monotonic()
    checkpoint = load_checkpoint(directory)
    config = checkpoint.config
    cameras = choose_cameras(data, config, cameras)
    arm = choose_robot(config, robot)
    with ProgressDisplay() as bar:
        task = bar.add("frames", None)
        episodes = read_test_and_others(data, arm, config, limit, lambda n: bar.update(task, n), cameras)
        total = sum(len(e.frames) for e in episodes)
        bar.update(task, total, total=total)
        task = bar.add("latents", total)
        space = encode_episodes(checkpoint.model, episodes, config.tick, lambda n: bar.update(task, n))
    metrics = {"episodes": len(episodes), **measure_latent_space(space)}
    write_summary(
        out / "summary.json",
        {
            "model": facts["name"],
            "model_id": checkpoint.model_id,
            "data": data,
            "robot": arm.name,
            "latent_space": metrics,
            "wall_s": time.monotonic() - started,
        },
    )
    with after_summary(out / "summary.json"):
        _write_image(out / "latent.png", config, space, metrics)
        _write_report(out / "report.html", config, facts, space, metrics, data)
    return metrics


def choose_cameras(data: Path, config: ModelConfig, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the bag's image topics, one for each view of the model.

    They are the given ones, else those that the model's frame topics were named after (bags.cameras.frame_topics).
    Raises InputError where there are more or fewer.
    """
    with open_recording(data) as bag:
        topics = sorted({plain_topic(t.topic) for t in bag.topics if t.msgtype in IMAGE_TYPES})
    views = config.cameras
    if given:
        chosen = given
    elif len(views) == 1:
        return ()
    else:
        spaces = [view.rpartition("/")[0] for view in views]
        chosen = tuple(topic for space in spaces for topic in topics if space in (topic, namespace(topic)))
    if len(chosen) != len(views):
        raise InputError(
            f"bag {data}: expected image topics for the views {', '.join(views)} of model {config.name}, found "
            f"{', '.join(chosen or topics)}: give --camera for each"
        )
    return chosen


def _write_report(
    path: Path, config: ModelConfig, facts: dict[str, Any], space: LatentSpace, metrics: dict[str, Any], data: Path
) -> None:
    test = int(space.test.sum())
    subtitle = f"model {facts['model_id']}, {metrics['frames']} frames of {metrics['episodes']} episodes of {data.name}"
    report = Report(f"Latent space of {config.name}", subtitle)
    if metrics["collapse"]:
        report.text(f"**{metrics['collapse'].capitalize()}.**")
    report.tiles(dict(describe_latent_metrics(metrics)))
    report.section("The latents on their two principal axes").plot(
        _drawn(3, (12.0, 3.4), lambda axes: _draw_plane(axes, space)),
        "Each point is a frame. Tool positions near each other should have latents near each other.",
    )
    report.section("Linear probe of the tool position").plot(
        _drawn(1, (8.0, 4.2), lambda ax: _draw_probe(ax, space, metrics)),
        f"Fitted on {len(space.frames) - test} frames of the other episodes, shown on {test} frames of test episodes; "
        f"half of them within {format_millimetres(metrics['probe']['error_p50'])}, 95 % within "
        f"{format_millimetres(metrics['probe']['error_p95'])}.",
    )
    report.section("Nearest frames").text(
        "A frame of a test episode, then the nearest frames by the latent, each of another episode. Below: the "
        "distance of their tools from the first one's."
    )
    report.images(_neighbour_images(space), width=110)
    report.section("Rank").plot(
        _drawn(1, (8.0, 3.2), lambda ax: _draw_spectrum(ax, space, metrics)),
        "Singular values of the latents. A steep fall to 0 means that dimensions are not used.",
    )
    report.section("Latent distance and tool distance").plot(
        _drawn(1, (8.0, 3.6), lambda ax: _draw_distance(ax, space, config)),
        "Random pairs of frames. Where the median is flat, the latent distance does not lead to the goal.",
    )
    report.section("The model").table(describe_facts(facts), ["what", "value"])
    report.table(describe_robots(facts), ["robot", "compatible"])
    for table in facts["card"]:
        report.section("Model card").table(table["rows"], table["columns"])
    report.write(path)


def _neighbour_images(space: LatentSpace) -> list[tuple[str, list]]:
    items = []
    for row, near in _find_neighbours(space):
        distances = ", ".join(_tool_distance(space, row, other) for other in near)
        items.append((distances, [space.image(shown) for shown in (row, *near)]))
    return items


def _drawn(columns: int, size: tuple[float, float], draw):
    import matplotlib

    figure, axes = plots.figure(columns, size=size)
    figure.set_dpi(200)  # of the points, which are rasterized
    with matplotlib.rc_context(plots.page_style()):
        draw(axes)
    return figure


def _draw_plane(axes, space: LatentSpace) -> None:
    """Draw the latents on their two principal axes, on each of three plots in the colours of another quantity."""
    import matplotlib

    rows = np.random.default_rng(0).permutation(len(space.frames))[:MAX_POINTS]
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


def _draw_probe(ax, space: LatentSpace, metrics: dict[str, Any]) -> None:
    """Draw the tool's position as the linear probe reads it on test episodes, over the true one."""
    tool = 100 * space.tool[space.test]
    limits = [float(tool.min()), float(tool.max())]
    ax.plot(limits, limits, color=plots.COLOURS[-1], lw=1, label="exact")
    for axis, name in enumerate("xy"):
        ax.plot(tool[:, axis], 100 * space.probed[:, axis], ".", ms=3, alpha=0.5, label=name, rasterized=True)
    r2 = format_optional(metrics["probe"]["r2"], "{:.4f}")
    ax.set_title(f"Linear probe of the tool, test: R² {r2}", loc="left", fontsize=11, fontweight="bold")
    ax.set(xlabel="tool (cm)", ylabel="read off the latent (cm)")
    _legend(ax)


def _draw_spectrum(ax, space: LatentSpace, metrics: dict[str, Any]) -> None:
    """Draw the singular values of the latents, over the largest, and the effective rank."""
    values = np.maximum(space.spectrum / max(space.spectrum[0], 1e-30), 1e-8)
    ax.plot(np.arange(1, len(values) + 1), values, ".-" if len(values) <= 64 else "-", label="singular values")
    if (rank := metrics["effective_rank"]) is not None:
        ax.axvline(rank, color=plots.COLOURS[1], lw=1.2, ls=(0, (4, 3)), label=f"effective rank {rank:.1f}")
    ax.set_title(f"Spectrum of {metrics['dimensions']} dimensions", loc="left", fontsize=11, fontweight="bold")
    ax.set(xlabel="number", ylabel="over the largest", yscale="log")
    _legend(ax)


def _draw_distance(ax, space: LatentSpace, config: ModelConfig) -> None:
    """Draw latent distance over tool distance of random pairs of frames, and its median."""
    apart, latent = space.pairs
    positive = latent > 0  # the axis is logarithmic
    apart, latent = 100 * apart[positive], latent[positive]
    ax.plot(apart, latent, ".", ms=2, alpha=0.3, rasterized=True)
    edges = np.quantile(apart, np.linspace(0, 1, 21)) if len(apart) else np.zeros(0)
    bins = [(lo <= apart) & (apart <= hi) for lo, hi in zip(edges[:-1], edges[1:], strict=True)]
    medians = [(np.median(apart[b]), np.median(latent[b])) for b in bins if b.any()]
    if medians:
        ax.plot(*np.array(medians).T, color=plots.COLOURS[1], label="median")
    if config.distance.far < UNCALIBRATED:
        ax.axhline(config.distance.far, lw=1, ls=":", color=plots.COLOURS[2], label="flat from here")
        ax.axhline(config.distance.tolerance, lw=1, ls="--", color=plots.COLOURS[3], label="counts as reached")
    ax.set_title("Latent distance of pairs of frames", loc="left", fontsize=11, fontweight="bold")
    ax.set(xlabel="tool distance (cm)", ylabel="mean square over the latent", yscale="log")
    _legend(ax)


def _find_neighbours(space: LatentSpace) -> list[tuple[int, np.ndarray]]:
    """Return test frames far from one another, each with the nearest frames of other episodes, nearest first (rows)."""
    numbers = space.pick_distant_frames(QUERIES)
    return [(int(space.kept[number]), space.nearest(number, NEIGHBOURS)[0]) for number in numbers]


def _tool_distance(space: LatentSpace, row: int, other: int) -> str:
    return format_millimetres(float(np.linalg.norm(space.tool[row] - space.tool[other])))


def _draw_neighbours(ax, space: LatentSpace) -> None:
    """Draw test frames with the nearest ones beside them, two such rows side by side."""
    width, height = NEIGHBOURS + 1.4, 1.3  # in frames
    for place, (row, near) in enumerate(_find_neighbours(space)):
        line, offset = divmod(place, 2)
        for column, shown in enumerate([row, *near]):
            left, bottom = offset * width + 1.05 * column, -line * height
            image = space.image(shown)
            top = bottom + image.shape[0] / image.shape[1]
            ax.imshow(image, extent=(left, left + 1, bottom, top))
            text = _tool_distance(space, row, shown) if column else "test frame"
            ax.text(left + 0.5, top + 0.04, text, ha="center", fontsize=8)
    ax.set(xlim=(0, 2 * width - 0.1), ylim=((1 - QUERIES // 2) * height - 0.05, 1.25))
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title("Nearest frames of other episodes by the latent, and how far their tools are", fontsize=11)


def _write_image(path: Path, config: ModelConfig, space: LatentSpace, metrics: dict[str, Any]) -> None:
    """Write all figures on one image, whole or not at all."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(plots.file_style()):
        figure = Figure(figsize=(14, 12.5))
        FigureCanvasAgg(figure)
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1, 1, 1.05))
        _draw_plane(top.subplots(1, 3), space)
        first, second, third = middle.subplots(1, 3)
        _draw_probe(first, space, metrics)
        _draw_spectrum(second, space, metrics)
        _draw_distance(third, space, config)
        _draw_neighbours(bottom.subplots(), space)
        figure.suptitle(f"Latent space of {config.name}", fontsize=14, fontweight="bold")
        with atomic_path(path) as partial:
            figure.savefig(partial, format="png", dpi=110)


def _legend(ax) -> None:
    import matplotlib

    legend = ax.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(matplotlib.rcParams["text.color"])
