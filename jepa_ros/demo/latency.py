"""Latencies of a run, from the messages on its topics. Times are s on the machine's clock.

A controller's trajectory does not name its plan, but in the tick in which the gate first follows a plan it publishes
both the window and a status with the plan's number. DDS stamps every message when it is written, so a window belongs to
the status that was written within ``SAME_TICK_S`` of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SAME_TICK_S = 0.02  # windows follow one another at 0.04 s or more


@dataclass(frozen=True)
class PlanSeen:
    """One plan. source: stamp of its frame. sent: written by the planner. received: came out of DDS on this machine."""

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


def first_use(statuses: Iterable[tuple[float, int]], windows: Sequence[float]) -> dict[int, float]:
    """Return when the first window of each plan was written: ``{plan_id: time}``.

    statuses: (time written, plan_id followed) of the gate's statuses, in any order. windows: times written, sorted.
    A plan whose first status has no window within ``SAME_TICK_S`` is left out.
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

    Missed: at the gate later than the frame's stamp + ``deadline`` + ``camera_period`` (s). A plan was at the gate when
    it came out of DDS on this machine, or by its window (``used``, from ``first_use``) if that was sooner. Plans with
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
    """Return how many messages a publisher sent with stamps from ``first`` to ``last`` (ns), even if not received.

    samples: (stamp, publication sequence number) of the messages received, in order.
    """
    inside = [sequence for stamp, sequence in samples if first <= stamp <= last]
    return inside[-1] - inside[0] + 1 if inside else 0
