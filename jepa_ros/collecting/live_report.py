"""What came of collecting on a live robot: summary.json and report.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.collecting.coverage import share_covered
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.motion.action_space import PlanarVelocity


@dataclass
class LiveEpisode:
    """One episode. pauses: why, in the order in which they came. ended: how. tool: (2,) m in the base frame, and
    actions: (A,) as executed, in each tick in which the arm was driven."""

    number: int
    pauses: list[str] = field(default_factory=list)
    ended: str = "interrupted"
    tool: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)


@dataclass
class LiveRecord:
    """All that happened. wanted: episodes asked for, or None. gate: plans cut, plans refused and stops, as the gate
    counted them meanwhile; refusals: its reasons. ended: why collecting ended early; empty where it did not."""

    options: Mapping[str, Any]
    wanted: int | None
    episodes: list[LiveEpisode] = field(default_factory=list)
    plans: int = 0
    gate: dict[str, int] = field(default_factory=lambda: {"clipped": 0, "rejected": 0, "stops": 0})
    refusals: list[str] = field(default_factory=list)
    ended: str = ""
    wall_s: float = 0.0

    @property
    def done(self) -> int:
        """Episodes that came to the end meant for them."""
        return sum(e.ended != "interrupted" for e in self.episodes)


def write_results(record: LiveRecord, space: PlanarVelocity, out: Path) -> None:
    """Write both files into `out`. space: with the workspace that the arm was kept in."""
    tool = np.array([xy for e in record.episodes for xy in e.tool]).reshape(-1, 2)
    actions = np.array([a for e in record.episodes for a in e.actions]).reshape(-1, 2)
    speed = np.linalg.norm(actions, axis=1)
    pauses = [text for e in record.episodes for text in e.pauses]
    values = {
        "options": dict(record.options),
        "episodes": {"wanted": record.wanted, "done": record.done, "begun": len(record.episodes)},
        "seconds": len(actions) * space.period,
        "actions": len(actions),
        "covered": share_covered(space, tool),
        "speed_m_s": {"mean": float(speed.mean() * space.max_speed) if len(speed) else None},
        "plans": {"sent": record.plans, "refused": record.gate["rejected"], "cut": record.gate["clipped"]},
        "stops": record.gate["stops"],
        "refusals": record.refusals,
        "pauses": pauses,
        "per_episode": [
            {
                "number": e.number,
                "seconds": len(e.actions) * space.period,
                "ticks": len(e.actions),
                "pauses": len(e.pauses),
            }
            | {"covered": share_covered(space, np.array(e.tool)), "ended": e.ended}
            for e in record.episodes
        ],
        "ended": record.ended,
        "wall_s": record.wall_s,
    }
    write_summary(out / "summary.json", values)
    _report(record, values, space, tool, speed).write(out / "report.html")


def _report(record: LiveRecord, values: dict, space: PlanarVelocity, tool: np.ndarray, speed: np.ndarray) -> Report:
    of = "" if record.wanted is None else f" of {record.wanted}"
    report = Report("Collecting on a live robot", f"{record.options['mode']}, robot {record.options['robot']}")
    complete = record.wanted is None or record.done >= record.wanted
    report.tiles(
        {
            "episodes": f"{record.done}{of}",
            "driven": f"{values['seconds']:.0f} s",
            "workspace covered": f"{100 * values['covered']:.0f} %",
            "plans refused": f"{record.gate['rejected']} of {record.plans}",
            "stops of the gate": record.gate["stops"],
        },
        {"episodes": complete},
    )
    if record.ended:
        report.text(f"**Ended early:** {record.ended}")
    fig, (left, right) = plots.figure(2)
    left.plot(*tool.T, ".", ms=2, alpha=0.5)
    left.plot(*np.vstack([space.workspace, space.workspace[:1]]).T, lw=1)
    left.set(title="Where the tool has been", xlabel="x (m)", ylabel="y (m)", aspect="equal")
    right.hist(speed, bins=40)
    right.set(title="Executed speed", xlabel="share of the greatest", ylabel="ticks")
    report.plot(fig)
    report.section("Episodes").table(values["per_episode"])
    for heading, texts in (("Pauses", values["pauses"]), ("Plans that the gate refused", values["refusals"])):
        if texts:
            counts = Counter(texts).most_common()
            report.section(heading).table([(text, count) for text, count in counts], ("why", "times"))
    return report
