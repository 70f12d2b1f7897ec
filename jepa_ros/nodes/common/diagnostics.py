"""A node's status on /diagnostics, rates of events, and throttling of log lines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from jepa_ros.nodes.common.qos import DIAGNOSTICS

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


class Status(NamedTuple):
    """One diagnostic status. level: OK, WARN, ERROR or STALE. message: one sentence. values: figures by key."""

    name: str
    level: bytes
    message: str
    values: Mapping[str, Any] = {}


class DiagnosticsPublisher:
    """Publishes a node's statuses on /diagnostics: once a second, and at once when levels or messages change.

    The topic is absolute, as diagnostic aggregators expect; hardware_id is the node's fully qualified name. Call
    `tick` at 1 Hz.
    """

    BURST, REFILL = 10, 4  # changes published at once; changes per second after such a burst

    def __init__(self, node, collect: Callable[[], list[Status]]) -> None:
        self._node = node
        self._collect = collect
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._last: list[tuple] = []
        self._tokens = self.BURST

    def tick(self) -> None:
        """Publish all statuses."""
        self._tokens = min(self._tokens + self.REFILL, self.BURST)
        self._publish(self._collect())

    def publish_changes(self) -> None:
        """Publish now if a level or a message differs from what was published last."""
        statuses = self._collect()
        if self._tokens > 0 and [tuple(s[:3]) for s in statuses] != self._last:
            self._tokens -= 1
            self._publish(statuses)

    def _publish(self, statuses: list[Status]) -> None:
        self._last = [tuple(s[:3]) for s in statuses]
        node = self._node
        message = DiagnosticArray()
        message.header.stamp = node.get_clock().now().to_msg()
        message.status = [
            DiagnosticStatus(
                level=level,
                name=f"{node.get_name()}: {name}",
                message=text,
                hardware_id=node.get_fully_qualified_name(),
                values=[KeyValue(key=str(k), value=_text(v)) for k, v in values.items()],
            )
            for name, level, text, values in statuses
        ]
        self._publisher.publish(message)


class Throttle:
    """Passes one event per period for each key and counts the others (steady clock)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed: dict[str, tuple[float, int]] = {}  # by key: time in s, and events suppressed since

    def passes(self, key: str, period: float) -> int | None:
        """Return how many events were suppressed since the last one that passed; None if this one is suppressed, too.

        period: s.
        """
        now = self._clock()
        at, suppressed = self._passed.get(key, (-math.inf, 0))
        if now - at < period:
            self._passed[key] = at, suppressed + 1
            return None
        self._passed[key] = now, 0
        return suppressed


class Meter:
    """Counts events and measures their rate, for diagnostics."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.total = 0
        self._then = (clock(), 0)
        self._rate = 0.0

    def count(self) -> None:
        self.total += 1

    def rate(self) -> float:
        """Return the rate in Hz since the last update; it is updated at most twice a second."""
        now = self._clock()
        since, total = self._then
        if now - since >= 0.5:
            self._rate = (self.total - total) / (now - since)
            self._then = (now, self.total)
        return self._rate


def _text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
