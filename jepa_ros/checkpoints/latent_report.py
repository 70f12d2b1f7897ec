"""`jepa_ros models inspect --data`: encode recorded episodes, measure and draw the latent space."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from jepa_ros.bags.cameras import IMAGE_TYPES, namespace, plain_topic
from jepa_ros.checkpoints import formatting as words
from jepa_ros.checkpoints import latent_figures as figures
from jepa_ros.checkpoints.latent_space import LatentSpace, encode, measure, read
from jepa_ros.datasets.recorded_episodes import open_recording
from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary
from jepa_ros.world_model.checkpoint import choose_robot, load_checkpoint
from jepa_ros.world_model.config import ModelConfig


def look(
    directory: Path,
    facts: dict[str, Any],
    data: Path,
    out: Path,
    limit: int,
    robot: str | None,
    cameras: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write summary.json, report.html and latent.png to `out`; returns the numbers of latent_space.measure.

    facts: of facts.read_facts. limit: episodes to read. robot: whose tool the bag shows, default: the first that the
    model was trained for. cameras: image topics in the order of the model's views.
    Shows progress. Raises InputError where model, bag or robot cannot be used.
    """
    started = time.monotonic()
    checkpoint = load_checkpoint(directory)
    config = checkpoint.config
    cameras = choose_cameras(data, config, cameras)
    arm = choose_robot(config, robot)
    with ProgressDisplay() as bar:
        task = bar.add("frames", None)
        episodes = read(data, arm, config, limit, lambda n: bar.update(task, n), cameras)
        total = sum(len(e.frames) for e in episodes)
        bar.update(task, total, total=total)
        task = bar.add("latents", total)
        space = encode(checkpoint.model, episodes, config.tick, lambda n: bar.update(task, n))
    found = {"episodes": len(episodes), **measure(space)}
    figures.write_picture(out / "latent.png", config, space, found)
    write_report(out / "report.html", config, facts, space, found, data)
    write_summary(
        out / "summary.json",
        {
            "model": facts["name"],
            "model_id": checkpoint.model_id,
            "data": data,
            "robot": arm.name,
            "latent_space": found,
            "wall_s": time.monotonic() - started,
        },
    )
    return found


def choose_cameras(data: Path, config: ModelConfig, given: tuple[str, ...]) -> tuple[str, ...]:
    """Image topics of the bag, one for each view of the model: the given ones, else those that the model's frame topics
    were named after (bags.cameras.frame_topics). Raises InputError where there are more or fewer."""
    with open_recording(data) as bag:
        there = sorted({plain_topic(t.topic) for t in bag.topics if t.msgtype in IMAGE_TYPES})
    views = config.cameras
    if given:
        chosen = given
    elif len(views) == 1:
        return ()
    else:
        spaces = [view.rpartition("/")[0] for view in views]
        chosen = tuple(topic for space in spaces for topic in there if space in (topic, namespace(topic)))
    if len(chosen) != len(views):
        raise InputError(
            f"bag {data}: expected image topics for the views {', '.join(views)} of model {config.name}, found "
            f"{', '.join(chosen or there)}: give --camera for each"
        )
    return chosen


def write_report(
    path: Path, config: ModelConfig, facts: dict[str, Any], space: LatentSpace, found: dict[str, Any], data: Path
) -> None:
    """report.html."""
    test = int(space.test.sum())
    subtitle = f"model {facts['model_id']}, {found['frames']} frames of {found['episodes']} episodes of {data.name}"
    report = Report(f"Latent space of {config.name}", subtitle)
    if found["collapse"]:
        report.text(f"**{found['collapse'].capitalize()}.**")
    report.tiles(dict(words.latent_rows(found)))
    report.section("The latents on their two principal axes").plot(
        _drawn(3, (12.0, 3.4), lambda axes: figures.draw_plane(axes, space)),
        "Each point is a frame. Neighbouring places of the tool should have neighbouring latents.",
    )
    report.section("What a linear probe reads").plot(
        _drawn(1, (8.0, 4.2), lambda ax: figures.draw_probe(ax, space, found)),
        f"Fitted on {len(space.frames) - test} frames of the other episodes, shown on {test} frames of test episodes; "
        f"half of them within {words.millimetres(found['probe']['error_p50'])}, 95 % within "
        f"{words.millimetres(found['probe']['error_p95'])}.",
    )
    report.section("Nearest frames").text(
        "A frame of a test episode, then the nearest frames by the latent, one each of other episodes. Below: how far "
        "their tools are from the first one's."
    )
    report.images(_pictures(space), width=110)
    report.section("Rank").plot(
        _drawn(1, (8.0, 3.2), lambda ax: figures.draw_spectrum(ax, space, found)),
        "Singular values of the latents. A steep fall to nothing means that dimensions are not used.",
    )
    report.section("Latent distance and distance").plot(
        _drawn(1, (8.0, 3.6), lambda ax: figures.draw_distance(ax, space, config)),
        "Random pairs of frames. Where the median is flat the latent does not say which way the goal is nearer.",
    )
    report.section("The model").table(words.fact_rows(facts), ["what", "value"])
    report.table(words.robot_rows(facts), ["robot", "compatible"])
    for table in facts["card"]:
        report.section("Its card says").table(table["rows"], table["columns"])
    report.write(path)


def _pictures(space: LatentSpace) -> list[tuple[str, list]]:
    items = []
    for row, near in figures.neighbour_rows(space):
        distances = ", ".join(figures.apart(space, row, other) for other in near)
        items.append((distances, [space.picture(shown) for shown in (row, *near)]))
    return items


def _drawn(columns: int, size: tuple[float, float], draw):
    import matplotlib

    figure, axes = plots.figure(columns, size=size)
    figure.set_dpi(200)  # of the points, which are drawn as a picture
    with matplotlib.rc_context(plots.page_style()):
        draw(axes)
    return figure
