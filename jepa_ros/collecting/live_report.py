"""Coverage of a recording, and the events and results of a `collect live` session: summary.json and report.html."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from jepa_ros.bags.cameras import decode_image
from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.typestore import ACTION, COMPRESSED_IMAGE, EPISODE, JOINT_STATE
from jepa_ros.reporting.output import after_summary
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.motion.velocity_space import VelocitySpace

STATE_STRIDE = 10
IMAGE_STRIDE, MAX_IMAGES = 500, 6
CELL_SIZES_M = {2: 0.02, 3: 0.04}  # of coverage, by the number of axes


def read_coverage(
    path: Path, space: VelocitySpace, joints: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[str]]:
    """Return tool coordinates (N, D) m of every tenth joint state, executed actions (M, A), a few images of the bag,
    and the split of each episode."""
    tool, actions, images, splits, states, seen = [], [], [], [], 0, 0
    with open_bag(path, strict=True) as bag:
        wanted = [t for t in bag.topics if t.msgtype in (ACTION, COMPRESSED_IMAGE, EPISODE, JOINT_STATE)]
        for raw in bag.messages(wanted):
            if raw.msgtype == COMPRESSED_IMAGE:
                seen += 1
                if seen % IMAGE_STRIDE == 1 and len(images) < MAX_IMAGES:
                    images.append(decode_image(raw.deserialise()))
            elif raw.msgtype == JOINT_STATE:
                states += 1
                if states % STATE_STRIDE == 0:
                    message = raw.deserialise()
                    tool.append(space.tool_coordinates(message.position[[message.name.index(j) for j in joints]]))
            elif raw.msgtype == ACTION:
                actions.append(raw.deserialise().values)
            else:
                splits.append(raw.deserialise().split)
    return np.array(tool), np.array(actions), images, splits


def share_covered(space: VelocitySpace, tool: np.ndarray) -> float:
    """Return the share of the workspace's cells (CELL_SIZES_M) that contain a position of tool coordinates (N, D) m."""
    axes = space.position_axes
    low, high = (bound[:axes] for bound in space.bounds)
    cell = CELL_SIZES_M[axes]
    counts = np.ceil((high - low) / cell).astype(int)
    every = np.indices(counts).reshape(axes, -1).T
    inside = {tuple(place) for place in every if _is_position_inside(space, low + cell * (place + 0.5))}
    positions = np.reshape(tool, (-1, space.axes))[:, :axes]
    visited = {tuple(place) for place in np.floor((positions - low) / cell).astype(int)}
    return len(inside & visited) / max(1, len(inside))


def _is_position_inside(space: VelocitySpace, position: np.ndarray) -> bool:
    normals, offsets = space.border
    return bool((normals @ position <= offsets).all())


def plot_coverage(space: VelocitySpace, tool: np.ndarray, speed: np.ndarray):
    """Return a figure of the positions of tool coordinates (N, D) m in the workspace, seen from above and, in space,
    from the side, and a histogram of the executed speeds (M,)."""
    from jepa_ros.reporting import plots

    figure, axes = plots.figure(space.position_axes)
    left, right = axes[0], axes[-1]
    left.plot(*tool[:, :2].T, ".", ms=2, alpha=0.4)
    left.plot(*np.vstack([space.outline, space.outline[:1]]).T, lw=1)
    left.set(title="Tool positions", xlabel="x (m)", ylabel="y (m)", aspect="equal")
    if space.position_axes == 3:
        axes[1].plot(*tool[:, [0, 2]].T, ".", ms=2, alpha=0.4)
        axes[1].set(title="Tool positions", xlabel="x (m)", ylabel="z (m)", aspect="equal")
    right.hist(speed, bins=40)
    right.set(title="Executed speed", xlabel="share of the maximum", ylabel="ticks")
    return figure


@dataclass(frozen=True)
class LiveOptions:
    """Options of a session. episodes, ticks, seconds: None for no limit. box: xmin, xmax, ymin, ymax, in space also
    zmin, zmax; reset: x, y, in space also z; m in the base frame. topic: of the teleoperation commands. axes,
    hold_button, end_button: as in GamePad."""

    mode: str
    robot: str
    seed: int
    episodes: int | None
    ticks: int | None
    seconds: float | None
    box: tuple[float, ...] | None
    reset: tuple[float, ...] | None
    namespace: str
    use_sim_time: bool
    topic: str
    axes: tuple[int, ...]
    hold_button: int
    end_button: int


@dataclass
class LiveEpisode:
    """One episode. pauses: their causes, in order. ended: how it ended. tool: coordinates (D,) m and actions:
    (A,) as executed, one of each per tick in which the arm was driven."""

    number: int
    pauses: list[str] = field(default_factory=list)
    ended: str = "interrupted"
    tool: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)


@dataclass
class LiveRecord:
    """Events of a session.

    gate: plans cut, plans rejected and stops, as the gate counted them. refusals: causes of the rejections. ended: why
    collecting ended early; empty where it did not.
    """

    options: LiveOptions
    episodes: list[LiveEpisode] = field(default_factory=list)
    plans: int = 0
    gate: dict[str, int] = field(default_factory=lambda: {"clipped": 0, "rejected": 0, "stops": 0})
    refusals: list[str] = field(default_factory=list)
    ended: str = ""
    wall_s: float = 0.0

    def figures(self) -> dict[str, str | int]:
        """Return the figures for the end of the command."""
        wanted = self.options.episodes
        return {
            "episodes": f"{self.done}" if wanted is None else f"{self.done} of {wanted}",
            "plans rejected": f"{self.gate['rejected']} of {self.plans}",
            "stops of the gate": self.gate["stops"],
        }

    @property
    def done(self) -> int:
        """Number of episodes that were not interrupted."""
        return sum(e.ended != "interrupted" for e in self.episodes)


def write_results(record: LiveRecord, space: VelocitySpace, out: Path) -> list[Path]:
    """Write both files into `out` and return their paths. space: with the workspace that the arm was kept in."""
    tool = np.array([x for e in record.episodes for x in e.tool]).reshape(-1, space.axes)
    actions = np.array([a for e in record.episodes for a in e.actions]).reshape(-1, space.dimension)
    speed = np.linalg.norm(actions[:, : space.position_axes], axis=1)
    values = {
        "options": asdict(record.options),
        "episodes": {"wanted": record.options.episodes, "done": record.done, "begun": len(record.episodes)},
        "seconds": len(actions) * space.period,
        "actions": len(actions),
        "covered": share_covered(space, tool),
        "speed_m_s": {"mean": float(speed.mean() * space.max_speed) if len(speed) else None},
        "plans": {"sent": record.plans, "refused": record.gate["rejected"], "cut": record.gate["clipped"]},
        "stops": record.gate["stops"],
        "refusals": record.refusals,
        "pauses": [text for e in record.episodes for text in e.pauses],
        "per_episode": [
            {
                "number": e.number,
                "seconds": len(e.actions) * space.period,
                "ticks": len(e.actions),
                "pauses": len(e.pauses),
                "covered": share_covered(space, np.array(e.tool)),
                "ended": e.ended,
            }
            for e in record.episodes
        ],
        "ended": record.ended,
        "wall_s": record.wall_s,
    }
    summary = write_summary(out / "summary.json", values)
    with after_summary(summary):
        return [summary, _report(record, values, space, tool, speed).write(out / "report.html")]


def _report(record: LiveRecord, values: dict, space: VelocitySpace, tool: np.ndarray, speed: np.ndarray) -> Report:
    report = Report("Collecting on a live robot", f"{record.options.mode}, robot {record.options.robot}")
    complete = record.options.episodes is None or record.done >= record.options.episodes
    driven = {"driven": f"{values['seconds']:.0f} s", "workspace covered": f"{100 * values['covered']:.0f} %"}
    report.tiles(record.figures() | driven, {"episodes": complete})
    if record.ended:
        report.text(f"**Ended early:** {record.ended}")
    report.plot(plot_coverage(space, tool, speed))
    report.section("Episodes").table(values["per_episode"])
    for heading, texts in (("Pauses", values["pauses"]), ("Plans that the gate rejected", values["refusals"])):
        if texts:
            report.section(heading).table(Counter(texts).most_common(), ("cause", "times"))
    return report
