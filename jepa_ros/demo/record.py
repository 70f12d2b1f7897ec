"""What a demo run leaves behind, in plain numbers, and the summary made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_ros.demo.latency import PlanSeen, count_in_window, first_use, missed, plan_uses, replan_rate
from jepa_ros.reporting.summary import percentiles


@dataclass(frozen=True)
class Frame:
    """A camera frame: stamp s, JPEG data, index of the goal under way (-1: none), distance of tool and goal in m.

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
    """One goal: its image (H, W, 3) uint8 rgb and place (3,) m, and how it went. times: s since the goal was sent."""

    index: int
    image: np.ndarray
    place: np.ndarray
    times: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)  # m, of tool and goal, by the simulator's transforms
    reached: bool = False
    reason: str = ""
    final_frame: bytes | None = None  # JPEG

    @property
    def start(self) -> float | None:
        return self.distances[0] if self.distances else None

    @property
    def final(self) -> float | None:
        return self.distances[-1] if self.distances else None


@dataclass
class DemoRecord:
    """Everything that summary, report and video are made from. Times in s since the epoch unless said otherwise."""

    wanted: int  # goals asked for
    seed: int
    model: str
    robot: str
    tolerance_m: float
    hold_s: float
    limit_s: float
    goal_set_hash: str = ""
    goals: list[GoalRun] = field(default_factory=list)  # those that were begun
    frames: list[Frame] = field(default_factory=list)
    images: list[tuple[int, int]] = field(default_factory=list)  # (stamp ns, publication number)
    latents: list[tuple[int, int]] = field(default_factory=list)
    plans: list[PlanSeen] = field(default_factory=list)
    plan_goals: Mapping[int, int] = field(default_factory=dict)  # plan id -> index of the goal
    statuses: list[tuple[float, int]] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    iterations: Mapping[int, int] = field(default_factory=dict)
    plan_ms: Mapping[int, float] = field(default_factory=dict)
    deadline_ms: float | None = None
    gate_own_ms: Mapping[str, float | None] = field(default_factory=dict)  # p50 and p99, by the gate's own count
    topics: dict[str, dict] = field(default_factory=dict)  # topic -> {"type", "from": [nodes], "to": [nodes]}
    processes: list[dict] = field(default_factory=list)  # {"name", "pid"}
    rmw: str = ""
    distro: str = ""
    wall_s: float = 0.0
    own_cpu: float | None = None  # cores that the recording itself took while goals were under way
    ended: str = ""  # why the run ended early; empty when it did not

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
        """(frame to controller message, plan to controller message) of every plan that reached the controllers."""
        uses = plan_uses(self.plans, self.statuses, self.windows)
        return [1e3 * use.latency for use in uses], [1e3 * use.gate for use in uses]

    def camera_period(self) -> float:
        """s between frames, by their stamps; 0 where there are not two."""
        stamps = np.diff([stamp for stamp, _ in self.images])
        return float(np.median(stamps)) * 1e-9 if stamps.size else 0.0


def summarise(record: DemoRecord) -> dict[str, Any]:
    """The figures of summary.json. None stands for what was not measured."""
    latency, gate = record.latencies_ms()
    deadline = record.deadline_ms
    used = first_use(record.statuses, sorted(record.windows))
    late = missed(record.plans, used, record.iterations, (deadline or np.inf) * 1e-3, record.camera_period())
    starts, finals = [g.start for g in record.done], [g.final for g in record.done]
    goals = {index: [] for index in record.plan_goals.values() if index >= 0}
    for plan in record.plans:
        if record.plan_goals.get(plan.plan_id, -1) >= 0:
            goals[record.plan_goals[plan.plan_id]].append(plan.sent)
    return {
        "goals": record.wanted,
        "goal_set_hash": record.goal_set_hash,
        "reached": record.reached,
        "tolerance_m": record.tolerance_m,
        "start_distance_m": {"min": min(starts, default=None), "median": _median(starts)},
        "final_distance_m": percentiles(finals, (50, 90), {"max": np.max}),
        "latency_ms": percentiles(latency, (50, 99), {"max": np.max}),
        "gate_ms": percentiles(gate, (50, 99), {"max": np.max}),
        "gate_own_ms": dict(record.gate_own_ms),
        "plan_ms": percentiles(record.plan_ms.values()),
        "deadline_ms": deadline,
        "deadline_misses": len(late),
        "plans": len(record.plans),
        "plans_used": len(latency),
        "replan_hz": replan_rate(goals.values()),
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
    """Frames that the camera published, and how many became latents, between the first and the last that did."""
    both = {stamp for stamp, _ in record.images} & {stamp for stamp, _ in record.latents}
    if not both:
        return {"sent": len(record.images), "encoded": 0}
    first, last = min(both), max(both)
    return {
        "sent": count_in_window(record.images, first, last),
        "encoded": count_in_window(record.latents, first, last),
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
