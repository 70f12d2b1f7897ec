"""What a node says about itself on /diagnostics, and log lines that do not flood."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from jepa_ros.nodes.common.qos import DIAGNOSTICS

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


class Status(NamedTuple):
    """One line of diagnostics: what about, how bad (OK, WARN, ERROR, STALE), one sentence, and figures."""

    name: str
    level: bytes
    message: str
    values: Mapping[str, Any] = {}


class DiagnosticsPublisher:
    """Publishes a node's statuses on /diagnostics: at 1 Hz when `tick` is, and at once when levels or messages change.

    The topic is absolute, as diagnostic aggregators expect; hardware_id is the node's fully qualified name.
    """

    BURST, REFILL = 10, 4
    """So many changes are published at once; after that four a second, and the rest with the next tick."""

    def __init__(self, node, collect: Callable[[], list[Status]]) -> None:
        self._node = node
        self._collect = collect
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._last: list[tuple] = []
        self._tokens = self.BURST

    def tick(self) -> None:
        self._tokens = min(self._tokens + self.REFILL, self.BURST)
        self._publish(self._collect())

    def changed(self) -> None:
        """Publishes now if a level or a message differs from what was said last."""
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
    """Lets one in `period` seconds through for each key and counts the rest (steady clock)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, list] = {}

    def passes(self, key: str, period: float) -> int | None:
        """None to stay quiet; otherwise how many were held back since the last that passed."""
        now = self._clock()
        entry = self._seen.get(key)
        if entry is not None and now - entry[0] < period:
            entry[1] += 1
            return None
        held = entry[1] if entry else 0
        self._seen[key] = [now, 0]
        return held


class Meter:
    """Events a second over the time since the last look, for diagnostics."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.total = 0
        self._then = (clock(), 0)
        self._rate = 0.0

    def count(self) -> None:
        self.total += 1

    def rate(self) -> float:
        """Hz, refreshed at most twice a second."""
        now = self._clock()
        since, total = self._then
        if now - since >= 0.5:
            self._rate = (self.total - total) / (now - since)
            self._then = (now, self.total)
        return self._rate


def _text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
