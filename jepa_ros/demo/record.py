"""Record of a demo run in plain numbers, and the summary made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_ros.demo.latency import PlanSeen, count_in_window, first_use, missed, plan_uses, replan_rate
from jepa_ros.reporting.summary import percentiles


@dataclass(frozen=True)
class Frame:
    """A camera frame: stamp s, JPEG data, index of the active goal (-1: none), distance of tool and goal in m.

    joints: positions by name in rad; tool: (3,) m in the base frame; both at about the same time, None if unknown.
    """

    stamp: float
    jpeg: bytes
    goal: int
    distance: float
    joints: Mapping[str, float] | None = None
    tool: np.ndarray | None = None


@dataclass
class GoalRun:
    """One goal: its image (H, W, 3) uint8 rgb and position (3,) m, and how it went. times: s since the goal was sent.
    distances: m between tool and goal, from the simulator's transforms. final_frame: JPEG data."""

    index: int
    image: np.ndarray
    place: np.ndarray
    times: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    reached: bool = False
    reason: str = ""
    final_frame: bytes | None = None

    @property
    def start(self) -> float | None:
        return self.distances[0] if self.distances else None

    @property
    def final(self) -> float | None:
        return self.distances[-1] if self.distances else None


@dataclass
class DemoRecord:
    """Everything that summary, report and video are made from; times in s since the epoch unless stated otherwise.

    wanted: number of goals requested. goals: those that were started. images, latents: (stamp ns, publication number).
    plan_goals: index of the goal by plan id. statuses: (written, plan id), of the gate. windows: when each was written.
    gate_own_ms: plan to window as the gate measures it. topics: ``{topic: {"type", "from": [nodes], "to": [nodes]}}``.
    own_cpu: cores that the recording took while goals were active. ended: why the run ended early, "" if it did not.
    """

    wanted: int
    seed: int
    model: str
    robot: str
    tolerance_m: float
    hold_s: float
    limit_s: float
    goal_set_hash: str = ""
    goals: list[GoalRun] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    images: list[tuple[int, int]] = field(default_factory=list)
    latents: list[tuple[int, int]] = field(default_factory=list)
    plans: list[PlanSeen] = field(default_factory=list)
    plan_goals: dict[int, int] = field(default_factory=dict)
    statuses: list[tuple[float, int]] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    iterations: dict[int, int] = field(default_factory=dict)
    plan_ms: dict[int, float] = field(default_factory=dict)
    deadline_ms: float | None = None
    gate_own_ms: dict[str, float | None] = field(default_factory=lambda: {"p50": None, "p99": None})
    topics: dict[str, dict] = field(default_factory=dict)
    processes: list[dict] = field(default_factory=list)  # {"name", "pid"}
    rmw: str = ""
    distro: str = ""
    wall_s: float = 0.0
    own_cpu: float | None = None
    ended: str = ""

    @property
    def done(self) -> list[GoalRun]:
        """Goals for which there is at least one distance."""
        return [goal for goal in self.goals if goal.distances]

    @property
    def reached(self) -> int:
        return sum(goal.reached for goal in self.goals)

    def frames_of(self, goal: int) -> list[Frame]:
        """Return the frames of one goal, in order."""
        return [frame for frame in self.frames if frame.goal == goal]

    def latencies_ms(self) -> tuple[list[float], list[float]]:
        """Return the times from frame and plan to controller message, of the plans that reached the controllers."""
        uses = plan_uses(self.plans, self.statuses, self.windows)
        return [1e3 * use.latency for use in uses], [1e3 * use.gate for use in uses]

    def camera_period(self) -> float:
        """Return the s between frames, by their stamps; 0 for less than two."""
        stamps = np.diff([stamp for stamp, _ in self.images])
        return float(np.median(stamps)) * 1e-9 if stamps.size else 0.0


def summarise(record: DemoRecord) -> dict[str, Any]:
    """Return the contents of summary.json; None for what was not measured."""
    latency, gate = record.latencies_ms()
    used = first_use(record.statuses, sorted(record.windows))
    late = missed(record.plans, used, record.iterations, (record.deadline_ms or np.inf) * 1e-3, record.camera_period())
    starts, finals = [g.start for g in record.done], [g.final for g in record.done]
    sent = [[p.sent for p in record.plans if record.plan_goals.get(p.plan_id) == goal.index] for goal in record.goals]
    return {
        "goals": record.wanted,
        "goal_set_hash": record.goal_set_hash,
        "reached": record.reached,
        "tolerance_m": record.tolerance_m,
        "start_distance_m": {"min": min(starts, default=None), "median": float(np.median(starts)) if starts else None},
        "final_distance_m": percentiles(finals, (50, 90), {"max": np.max}),
        "latency_ms": percentiles(latency, (50, 99), {"max": np.max}),
        "gate_ms": percentiles(gate, (50, 99), {"max": np.max}),
        "gate_own_ms": dict(record.gate_own_ms),
        "plan_ms": percentiles(record.plan_ms.values()),
        "deadline_ms": record.deadline_ms,
        "deadline_misses": len(late),
        "plans": len(record.plans),
        "plans_used": len(latency),
        "replan_hz": replan_rate(sent),
        "frames": _frames(record),
        "rmw": record.rmw,
        "distro": record.distro,
        "model": record.model,
        "robot": record.robot,
        "seed": record.seed,
        "processes": record.processes,
        "wall_s": record.wall_s,
        "demo_cpu_cores": record.own_cpu,
        "begun": len(record.goals),
        "ended_early": record.ended,
        "per_goal": [
            {
                "goal": goal.index,
                "reached": goal.reached,
                "start_m": goal.start,
                "final_m": goal.final,
                "seconds": goal.times[-1],
                "reason": goal.reason,
            }
            for goal in record.done
        ],
    }


def _frames(record: DemoRecord) -> dict[str, int]:
    """Count the frames that the camera published and those that became latents, from the first to the last that did."""
    both = {stamp for stamp, _ in record.images} & {stamp for stamp, _ in record.latents}
    if not both:
        return {"sent": len(record.images), "encoded": 0}
    first, last = min(both), max(both)
    counts = (count_in_window(samples, first, last) for samples in (record.images, record.latents))
    return dict(zip(("sent", "encoded"), counts, strict=True))
