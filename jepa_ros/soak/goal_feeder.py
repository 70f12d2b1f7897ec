"""Goal feeder: sends one goal image after the other, also while the planner restarts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jepa_ros.graph_clients.goal_client import GoalClient, Request
from jepa_ros.planning.codes import PlannerCode

GOAL_TIMEOUT = 20.0  # s that the planner may try a goal
ACCEPT_TIMEOUT = 3.0  # s; an answer sent before discovery has matched both ends is lost
FEEDBACK_TIMEOUT = 5.0  # s
PAUSE = 0.2  # s between the end of a goal and the next one
GATE_PAUSE = 1.0  # s, if the gate blocks all plans: a goal is then refused at once
GATE_BLOCKED = (PlannerCode.GATE_SILENT, PlannerCode.GATE_INACTIVE, PlannerCode.GATE_LATCHED)


class GoalFeeder:
    """Sends the images of ``images`` in turn. ``outcomes`` counts how goals ended, and how many were ``sent``."""

    def __init__(self, client: GoalClient, images: Sequence[np.ndarray]) -> None:
        self._client, self._images = client, images
        self._next = 0
        self._request: Request | None = None
        self._replaced: list[Request] = []  # not ended yet
        self._received_at = self._ended_at = -math.inf
        self._feedback = None
        self._pause = PAUSE
        self.outcomes: Counter[str] = Counter()

    @property
    def index(self) -> int:
        """Return the number of the image that is, or was last, the goal."""
        return (self._next - 1) % len(self._images)

    def update(self, now: float) -> None:
        """Count goals that have ended; send the next one if none is active."""
        for request in [r for r in self._replaced if r.outcome is not None]:
            self.outcomes[f"replaced ({request.outcome.status})"] += 1
            self._replaced.remove(request)
        request = self._request
        if request is not None and request.feedback is not self._feedback:
            self._feedback, self._received_at = request.feedback, now
        if request is None:
            if now - self._ended_at > self._pause and self._client.is_ready():
                self._send(now)
        elif request.outcome is not None:
            outcome = request.outcome
            self.outcomes["reached" if outcome.reached else outcome.status] += 1
            self._pause = GATE_PAUSE if outcome.code in GATE_BLOCKED else PAUSE
            self._request, self._ended_at = None, now
        elif now - self._received_at > (FEEDBACK_TIMEOUT if request.accepted else ACCEPT_TIMEOUT):
            self.give_up()  # the planner has gone, or waits for frames: sending a goal again does no harm

    def give_up(self) -> None:
        """Forget the goal: its outcome will not be received any more."""
        if self._request is not None:
            self.outcomes["without an answer"] += 1
            self._request = None

    def cancel(self) -> None:
        """Ask the planner to cancel the goal."""
        if self._request is not None:
            self._request.cancel()

    def replace(self) -> None:
        """Send the next goal while this one is active."""
        if self._request is not None:
            self._replaced.append(self._request)
        self._send(self._received_at)

    def _send(self, now: float) -> None:
        image = self._images[self._next % len(self._images)]
        self._next += 1
        self.outcomes["sent"] += 1
        self._received_at = now
        self._request, self._feedback = self._client.send_image(image, timeout=GOAL_TIMEOUT), None
