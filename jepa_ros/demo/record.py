"""Record of a demo run in plain numbers, and the summary made from it.

A controller's trajectory does not name its plan, but in the tick in which the gate first follows a plan it publishes
both the window and a status with the plan's number. DDS stamps every message when it is written, so a window belongs to
the status that was written within `SAME_TICK_S` of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_ros.reporting.summary import percentiles

SAME_TICK_S = 0.02  # windows follow one another at 0.04 s or more


@dataclass(frozen=True)
class PlanSeen:
    """One plan, times in s on the machine's clock. source: stamp of its frame. sent: written by the planner.
    received: came out of DDS on this machine."""

    plan_id: int
    source: float
    sent: float
    received: float


@dataclass(frozen=True)
class PlanUse:
    """A plan that reached the controllers. latency: s from the frame's stamp to the window. gate: s from the planner's
    writing the plan to the window, which is the gate's part and the transport to it."""

    plan_id: int
    latency: float
    gate: float


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
    gate_own_ms: plan to window as the gate measures it. topics: `{topic: {"type", "from": [nodes], "to": [nodes]}}`.
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


def first_use(statuses: Iterable[tuple[float, int]], windows: Sequence[float]) -> dict[int, float]:
    """Return when the first window of each plan was written: `{plan_id: time}`.

    statuses: (time written, plan_id followed) of the gate's statuses, in any order. windows: times written, sorted.
    A plan whose first status has no window within `SAME_TICK_S` is left out.
    """
    first: dict[int, float] = {}
    for t, plan_id in sorted(statuses):
        if plan_id:
            first.setdefault(plan_id, t)
    found = {}
    for plan_id, t in first.items():
        i = bisect_left(windows, t)
        nearest = min(windows[max(0, i - 1) : i + 1], key=lambda window: abs(window - t), default=np.inf)
        if abs(nearest - t) <= SAME_TICK_S:
            found[plan_id] = nearest
    return found


def plan_uses(
    plans: Iterable[PlanSeen], statuses: Iterable[tuple[float, int]], windows: Iterable[float]
) -> list[PlanUse]:
    """Return the latencies of the plans that reached the controllers, in the plans' order."""
    used = first_use(statuses, sorted(windows))
    return [
        PlanUse(plan.plan_id, used[plan.plan_id] - plan.source, used[plan.plan_id] - plan.sent)
        for plan in plans
        if plan.plan_id in used
    ]


def missed(
    plans: Iterable[PlanSeen],
    used: Mapping[int, float],
    iterations: Mapping[int, int],
    deadline: float,
    camera_period: float,
) -> list[int]:
    """Return the numbers of the plans that missed the deadline, or were published before one full search iteration.

    Missed: at the gate later than the frame's stamp + `deadline` + `camera_period` (s). A plan was at the gate when
    it came out of DDS on this machine, or by its window (`used`, from `first_use`) if that was sooner. Plans with
    an unknown number of iterations count by their time only.
    """
    return [
        plan.plan_id
        for plan in plans
        if min(plan.received, used.get(plan.plan_id, plan.received)) > plan.source + deadline + camera_period
        or iterations.get(plan.plan_id, 1) < 1
    ]


def replan_rate(sources: Iterable[Sequence[float]]) -> float | None:
    """Return the plans a second from the times of each goal's plans; None where no goal had two."""
    gaps = np.concatenate([np.diff(np.sort(times)) for times in sources] or [np.zeros(0)])
    return float(len(gaps) / gaps.sum()) if gaps.size and gaps.sum() > 0 else None


def count_in_window(samples: Sequence[tuple[int, int]], first: int, last: int) -> int:
    """Return how many messages a publisher sent with stamps from `first` to `last` (ns), even if not received.

    samples: (stamp, publication sequence number) of the messages received, in order.
    """
    inside = [sequence for stamp, sequence in samples if first <= stamp <= last]
    return inside[-1] - inside[0] + 1 if inside else 0
