"""From what was seen on the topics of a run to its latencies. Times are s on the machine's clock.

A controller's trajectory cannot say which plan it came from. The gate tells it beside: within the tick in which it
first follows a plan it publishes both the window and a status with the plan's number. DDS stamps every message when it
is written, so a window belongs to the status that was written within ``SAME_TICK`` of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SAME_TICK = 0.02  # s; windows follow one another at 0.04 s or more


@dataclass(frozen=True)
class PlanSeen:
    """One plan. source: stamp of its frame. sent: written by the planner. received: came out of DDS on this machine."""

    plan_id: int
    source: float
    sent: float
    received: float


@dataclass(frozen=True)
class PlanUse:
    """A plan that reached the controllers with the window written at ``window``."""

    plan_id: int
    latency: float  # s, frame's stamp to window
    gate: float  # s, plan written by the planner to window: the gate's own part and the way there


def first_use(statuses: Iterable[tuple[float, int]], windows: Sequence[float]) -> dict[int, float]:
    """When the first window of each plan was written: ``{plan_id: time}``.

    statuses: (time written, plan_id followed) of the gate's statuses, in any order. windows: times written, sorted.
    A plan whose first status has no window within ``SAME_TICK`` is left out.
    """
    first: dict[int, float] = {}
    for t, plan_id in sorted(statuses):
        if plan_id and plan_id not in first:
            first[plan_id] = t
    found = {}
    for plan_id, t in first.items():
        i = bisect_left(windows, t)
        near = min(windows[max(0, i - 1) : i + 1], key=lambda window: abs(window - t), default=None)
        if near is not None and abs(near - t) <= SAME_TICK:
            found[plan_id] = near
    return found


def plan_uses(
    plans: Iterable[PlanSeen], statuses: Iterable[tuple[float, int]], windows: Iterable[float]
) -> list[PlanUse]:
    """Latencies of the plans that reached the controllers, in the plans' order."""
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
    """Numbers of the plans that came too late, or were given out before one full search iteration.

    Late: at the gate after the frame's stamp + ``deadline`` + ``camera_period`` (s). It was there when it came out of
    DDS on this machine, or by the window that followed from it (``used``, of ``first_use``) where that was sooner.
    Plans whose number of iterations is not known count by their time only.
    """
    return [
        plan.plan_id
        for plan in plans
        if min(plan.received, used.get(plan.plan_id, plan.received)) > plan.source + deadline + camera_period
        or iterations.get(plan.plan_id, 1) < 1
    ]


def replan_rate(sources: Iterable[Sequence[float]]) -> float | None:
    """Plans a second: ``sources`` are the times of the plans of each goal; None where no goal had two."""
    gaps = np.concatenate([np.diff(np.sort(times)) for times in sources] or [np.zeros(0)])
    return float(len(gaps) / gaps.sum()) if gaps.size and gaps.sum() > 0 else None


def count_in_window(samples: Sequence[tuple[int, int]], first: int, last: int) -> int:
    """How many messages a publisher sent with stamps from ``first`` to ``last`` (ns), also those not received here.

    samples: (stamp, publication sequence number) of the messages received, in order; the numbers count what was sent.
    """
    inside = [sequence for stamp, sequence in samples if first <= stamp <= last]
    return inside[-1] - inside[0] + 1 if inside else 0
