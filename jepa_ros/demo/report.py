"""The demo's page and video: the cell drawn for people, beside the images of the model's camera."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jepa_ros.demo.record import DemoRecord, Frame, GoalRun
from jepa_ros.images import decode_compressed
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report, with_unit
from jepa_ros.reporting.video import write_video

VIEW_WIDTH, VIEW_HEIGHT = 480, 360
"""Pixels of the video's main view; the camera and the goal image stand beside it, at half its size."""
VIDEO_STRIDE = 2
"""Camera frames per frame of the video; drawing the view of each takes time."""
_GREEN, _WHITE, _SHADE = (15, 130, 65), (255, 255, 255), (20, 22, 28)


def write_report(record: DemoRecord, summary: Mapping[str, Any], path: str | os.PathLike, video: str = "") -> Path:
    """Write the page of a demo run. summary: `summarise(record)`. video: name of a file beside the page."""
    report = Report(
        "jepa_ros demo", f"{record.wanted} goals · seed {record.seed} · model {record.model} · robot {record.robot}"
    )
    if record.ended:
        report.text(f"**The run ended early:** {record.ended}. The results cover the time until then.")
    latency, plan_ms, frames = summary["latency_ms"], summary["plan_ms"], summary["frames"]
    lost = 1 - frames["encoded"] / frames["sent"] if frames["sent"] else None
    report.tiles(
        {
            "goals reached": f"{summary['reached']} of {summary['begun']}",
            "final distance, p50": with_unit(summary["final_distance_m"]["p50"], "cm", 100),
            "frame to controller, p50": with_unit(latency["p50"], "ms"),
            "frame to controller, p99": with_unit(latency["p99"], "ms"),
            "gate's own part, p99": with_unit(summary["gate_own_ms"]["p99"], "ms"),
            "search, p50": with_unit(plan_ms["p50"], "ms"),
            "plans a second": with_unit(summary["replan_hz"], ""),
            "deadline misses": f"{summary['deadline_misses']} of {summary['plans']}",
            "frames lost": with_unit(lost, "%", 100),
        },
        good={"goals reached": summary["reached"] == summary["begun"] > 0},
    )
    report.text(
        "Every goal is one image that the model was not trained on. It is reached when the tool stays within "
        f"{100 * record.tolerance_m:g} cm of the goal's position for {record.hold_s:g} s, in {record.limit_s:g} s or "
        "less. Distances come from the simulator's transforms, which model and planner do not receive."
    )
    report.section("Every goal, at its end").text(
        "Left: the cell, drawn after the run; green: the goal position, blue: the tool's path, red: the tool. Middle: "
        "the goal image. Right: the last camera image. The model gets camera images only; the discs on its table are "
        "decoration."
    )
    report.images(_final_views(record), width=190)
    if video:
        report.section("Video").video(video, "All goals: the cell, the camera image, and the goal image.")
    _add_curves(report, record)
    if record.topics:
        nodes = [process["name"] for process in record.processes]
        report.section("The graph").plot(draw_graph(record.topics, nodes), "As ROS reported it during the run.")
    report.section("Every goal").table(
        {
            "goal": goal.index + 1,
            "reached": goal.reached,
            "start (cm)": None if goal.start is None else 100 * goal.start,
            "end (cm)": None if goal.final is None else 100 * goal.final,
            "time (s)": goal.times[-1],
            "how it ended": goal.reason,
        }
        for goal in record.done
    )
    report.section("Processes").table(record.processes, ["name", "pid"])
    report.text(f"`{summary['rmw']}` on ROS 2 `{summary['distro']}`, {summary['wall_s']:.0f} s in all.")
    return report.write(path)


def _add_curves(report: Report, record: DemoRecord) -> None:
    series = {str(g.index + 1): (g.times, [100 * d for d in g.distances]) for g in record.done}
    tolerance = (100 * record.tolerance_m, "tolerance")
    figure = plots.lines(series, x="s since the goal was sent", y="cm", level=tolerance, faint=True)
    figure.axes[0].set_ylim(bottom=0)
    report.section("Distance to the goal").plot(figure)
    latency, gate = record.latencies_ms()
    report.section("Latency")
    for samples, caption in (
        (latency, "From a frame's stamp to the first message to the controller whose plan was made from it."),
        (gate, "The gate's part: from the planner's sending the plan to that message."),
        (list(record.plan_ms.values()), "The planner's search."),
    ):
        if samples:
            marks = {f"p{p}": float(np.percentile(samples, p)) for p in (50, 99)}
            report.plot(plots.histogram(samples, x="ms", marks=marks), caption)


def draw_graph(topics: Mapping[str, Mapping[str, Any]], order: Sequence[str] = ()):
    """Return a figure of the graph: publishers on the left, topics in the middle, subscribers on the right.

    topics: `{topic: {"type": "sensor_msgs/msg/Image", "from": [node, ...], "to": [node, ...]}}`. order: nodes that
    get the first colours and rows.
    """
    nodes = list(dict.fromkeys([*order, *(n for t in topics.values() for n in (*t["from"], *t["to"]))]))
    colours = {node: plots.COLOURS[i % len(plots.COLOURS)] for i, node in enumerate(nodes)}

    def first_nodes(topic: str) -> tuple:
        ends = (min(map(nodes.index, topics[topic][side]), default=len(nodes)) for side in ("from", "to"))
        return (*ends, topic)

    rows = {topic: row for row, topic in enumerate(sorted(topics, key=first_nodes))}
    fig, axes = plots.figure(size=(9.0, 0.8 + 0.3 * len(rows)))
    axes.set(xlim=(0, 1), ylim=(len(rows), -1.5))
    axes.axis("off")
    centre = {"ha": "center", "va": "center", "fontsize": 8}
    for side, x, title in (("from", 0.08, "publishes"), ("to", 0.92, "subscribes")):
        axes.text(x, -1.0, title, color=plots.INK, **centre)
        own = {node: [rows[topic] for topic in rows if node in topics[topic][side]] for node in nodes}
        y = -np.inf
        for node in sorted(filter(own.get, nodes), key=lambda node: np.mean(own[node])):
            y = max(np.mean(own[node]), y + 1.2)  # in the middle of its topics, below the node before
            box = {"boxstyle": "round,pad=0.4", "facecolor": colours[node], "edgecolor": "none"}
            axes.text(x, y, node, color="white", weight="bold", bbox=box, **centre)
            for topic in (topic for topic in rows if node in topics[topic][side]):
                publisher = node if side == "from" else topics[topic]["from"][0]
                share = np.linspace(0.0, 1.0, 30)
                bent = y + (rows[topic] - y) * (3 * share**2 - 2 * share**3)
                axes.plot(x + (0.5 - x) * share, bent, color=colours[publisher], lw=1.2, alpha=0.7)
    for topic, row in rows.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": plots.FAINT, "edgecolor": "none"}
        axes.text(
            0.5, row, f"{topic}  ({topics[topic]['type'].rpartition('/')[2]})", color=plots.INK, bbox=box, **centre
        )
    return fig


def _final_views(record: DemoRecord) -> Iterator[tuple[str, list[np.ndarray]]]:
    from jepa_ros.sim.presentation import PresentationView

    if not record.done:
        return
    with closing(PresentationView(VIEW_WIDTH, VIEW_HEIGHT, shadows=True)) as view:
        for goal in record.done:
            result = "reached" if goal.reached else "**not reached**"
            caption = f"{goal.index + 1}: {result}, {100 * goal.final:.1f} cm after {goal.times[-1]:.1f} s"
            frames = [frame for frame in record.frames_of(goal.index) if frame.joints]
            drawn = [view.render(frames[-1].joints, goal.place, _tool_path(frames))] if frames else []
            yield (
                caption,
                [*drawn, goal.image, *([decode_compressed("jpeg", goal.final_frame)] if goal.final_frame else [])],
            )


def _tool_path(frames: list[Frame]) -> np.ndarray:
    return np.array([frame.tool for frame in frames if frame.tool is not None]).reshape(-1, 3)


def write_demo_video(record: DemoRecord, path: str | os.PathLike) -> int:
    """Write the video of all goals: the cell drawn for people, beside the camera and the goal image; return the number
    of frames."""
    period = VIDEO_STRIDE * record.camera_period()
    return write_video(path, _draw_frames(record), round(1 / period, 3) if period > 0 else 15.0 / VIDEO_STRIDE)


def _draw_frames(record: DemoRecord) -> Iterator[np.ndarray]:
    from jepa_ros.sim.presentation import PresentationView

    if not any(record.frames_of(goal.index) for goal in record.goals):
        return
    with closing(PresentationView(VIEW_WIDTH, VIEW_HEIGHT)) as view:
        for goal in record.goals:
            frames = record.frames_of(goal.index)
            for k in range(0, len(frames), VIDEO_STRIDE):
                joints, path = frames[k].joints, _tool_path(frames[: k + 1])
                drawn = view.render(joints, goal.place, path) if joints else None
                yield compose_frame(frames[k], goal, record, drawn)


def compose_frame(frame: Frame, goal: GoalRun, record: DemoRecord, view: np.ndarray | None) -> np.ndarray:
    """Return one frame of the video, (360, 720, 3) uint8 rgb: the view (None: the camera), the camera, the goal."""
    camera, half = decode_compressed("jpeg", frame.jpeg), (VIEW_WIDTH // 2, VIEW_HEIGHT // 2)
    main = camera if view is None else view
    canvas = np.empty((VIEW_HEIGHT, VIEW_WIDTH + half[0], 3), np.uint8)
    canvas[:, :VIEW_WIDTH] = cv2.resize(main, (VIEW_WIDTH, VIEW_HEIGHT), interpolation=cv2.INTER_AREA)
    near = frame.distance <= record.tolerance_m
    for row, (image, text) in enumerate(((camera, "what the model sees"), (goal.image, "goal image"))):
        top = row * half[1]
        canvas[top : top + half[1], VIEW_WIDTH:] = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        _label(canvas, text, (VIEW_WIDTH + 8, top + half[1] - 8), 0.4, _SHADE)
    canvas[:, VIEW_WIDTH : VIEW_WIDTH + 2] = canvas[half[1] - 1 : half[1] + 1, VIEW_WIDTH:] = _SHADE
    _label(canvas, f"goal {goal.index + 1}/{record.wanted}", (12, 26), 0.5, _SHADE)
    if np.isfinite(frame.distance):
        text = f"{100 * frame.distance:.1f} cm" + (": within the tolerance" if near else " to go")
        _label(canvas, text, (12, 50), 0.5, _GREEN if near else _SHADE)
    return canvas


def _label(canvas: np.ndarray, text: str, at: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    """Write text on a white box; at: the left end of its base line."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    cv2.rectangle(canvas, (at[0] - 4, at[1] - height - 4), (at[0] + width + 4, at[1] + below), _WHITE, -1)
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
