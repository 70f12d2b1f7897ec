"""Keeps an arm busy: one goal image after the other, whatever becomes of the planner meanwhile."""

from __future__ import annotations

import math
from collections import Counter

from jepa_ros.graph_clients.goal_client import GoalClient, Request
from jepa_ros.planning.codes import PlannerCode

TIMEOUT = 20.0  # s that the planner gives a goal
ACCEPTED_WITHIN = 3.0  # s; an answer that leaves before discovery has matched both ends is lost
FEEDBACK_WITHIN = 5.0  # s
PAUSE = 0.2  # s between the end of a goal and the next one
GATE_PAUSE = 1.0  # s, where the gate lets nothing through: a goal is then refused at once
GATE_CLOSED = (PlannerCode.GATE_SILENT, PlannerCode.GATE_INACTIVE, PlannerCode.GATE_LATCHED)


class Goals:
    """Sends the images of ``images`` in turn. ``count``: how they ended; ``sent`` among it."""

    def __init__(self, client: GoalClient, images: list) -> None:
        self._client, self._images = client, images
        self._next = 0
        self._request: Request | None = None
        self._old: list[Request] = []  # replaced, their end still to come
        self._heard = self._ended = -math.inf
        self._feedback = None
        self._pause = PAUSE
        self.count: Counter[str] = Counter()

    @property
    def index(self) -> int:
        """Which image is, or was last, the goal."""
        return (self._next - 1) % len(self._images)

    def look(self, now: float) -> None:
        """See what has become of the goal; send the next one where none is under way."""
        for request in [r for r in self._old if r.outcome is not None]:
            self.count[f"replaced ({request.outcome.status})"] += 1
            self._old.remove(request)
        request = self._request
        if request is not None and request.feedback is not self._feedback:
            self._feedback, self._heard = request.feedback, now
        if request is None:
            if now - self._ended > self._pause and self._client.is_ready():
                self._send(now)
        elif request.outcome is not None:
            outcome = request.outcome
            self.count["reached" if outcome.reached else outcome.status] += 1
            self._pause = GATE_PAUSE if outcome.code in GATE_CLOSED else PAUSE
            self._request, self._ended = None, now
        elif now - self._heard > (FEEDBACK_WITHIN if request.accepted else ACCEPTED_WITHIN):
            self.lost()  # the planner has gone, or waits for frames: it does no harm to be asked again

    def lost(self) -> None:
        """Nobody will say any more what became of this goal."""
        if self._request is not None:
            self.count["without an answer"] += 1
            self._request = None

    def cancel(self) -> None:
        """Ask the planner to give the goal up."""
        if self._request is not None:
            self._request.cancel()

    def replace(self) -> None:
        """Send the next goal while this one is under way."""
        if self._request is not None:
            self._old.append(self._request)
        self._send(self._heard)

    def _send(self, now: float) -> None:
        image = self._images[self._next % len(self._images)]
        self._next += 1
        self.count["sent"] += 1
        self._heard = now
        self._request, self._feedback = self._client.send_image(image, timeout=TIMEOUT), None
