"""Cuts a bag at its episode markers, and where its clock jumps: within a segment all stamps are of one time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.datasets.signals import Marker, Series, Signals

JUMP = 1.0
"""s that a stamp lies before the one before it, from which the clock counts as set back."""
FAR = 3600.0
"""s that a single stamp lies ahead of its neighbours, from which it counts as garbage."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Track:
    """Samples of one topic in a segment in the order of their stamps: times (n,) s from the segment's start, stamps
    (n,) ns, values a list of n."""

    times: np.ndarray
    stamps: np.ndarray
    values: list

    def array(self) -> np.ndarray:
        """The values as (n, D) float."""
        return np.array(self.values, float)


@dataclass(frozen=True)
class Segment:
    """What was recorded between two markers without a jump of the clock. split: empty where no marker says.

    number: of the episode in the bag. start: ns that times count from.
    """

    number: int
    split: str
    task: str
    start: int
    views: list[Track]
    states: Track
    actions: Track
    objects: dict[str, Track] = field(default_factory=dict)


def segments(signals: Signals, dropped: Counter) -> Iterator[Segment]:
    """The segments of a bag in the order of recording; numbers of messages that belong to none are added to dropped."""
    markers = sorted(signals.markers, key=lambda m: m.order)
    if not markers:
        first = signals.views[0]
        markers = [Marker(-1, first.stamps[0], 0, "", "")]
    else:
        before = sum(order < markers[0].order for order in signals.views[0].order)
        if before:
            dropped["pictures before the first episode"] += before
    ends = [*(m.order for m in markers[1:]), np.iinfo(np.int64).max]
    every = {("view", k): series for k, series in enumerate(signals.views)}
    every |= {"states": signals.states, "actions": signals.actions}
    every |= {("object", name): series for name, series in signals.objects.items()}
    orders = {key: np.array(series.order, np.int64) for key, series in every.items()}
    number = -1
    for marker, end in zip(markers, ends, strict=True):
        parts = {
            key: _epochs(_between(series, orders[key], marker.order, end), dropped) for key, series in every.items()
        }
        for epoch in range(max(map(len, parts.values()))):
            number += 1
            # Before the clock was set back, times count from the marker; after it, from the first picture there.
            start = marker.stamp if epoch == 0 else _first(parts, epoch)
            tracks = {key: _track(part, epoch, start, dropped) for key, part in parts.items()}
            yield Segment(
                marker.number if len(signals.markers) and epoch == 0 else number,
                marker.split if marker.split in SPLITS else "",
                marker.task,
                start,
                [tracks["view", k] for k in range(len(signals.views))],
                tracks["states"],
                tracks["actions"],
                {name: tracks["object", name] for name in signals.objects},
            )


def _between(series: Series, order: np.ndarray, low: int, high: int) -> list[tuple[int, object]]:
    """(stamp, value) of the messages whose running numbers `order` lie after low and before high."""
    begin, end = np.searchsorted(order, low, "right"), np.searchsorted(order, high, "left")
    return list(zip(series.stamps[begin:end], series.values[begin:end], strict=True))


def _epochs(samples: list[tuple[int, object]], dropped: Counter) -> list[list[tuple[int, object]]]:
    """Samples divided where time goes back and stays there; a single stamp from another time is dropped."""
    epochs: list[list[tuple[int, object]]] = [[]]
    last = None
    for index, (stamp, value) in enumerate(samples):
        later = [s for s, _ in samples[index + 1 : index + 3]]
        back = last is not None and stamp < last - JUMP * 1e9
        ahead = not back and (last is None or stamp > last + FAR * 1e9)
        stays = bool(later) and (later[0] <= last - JUMP * 1e9 if back else max(later) >= stamp - FAR * 1e9)
        if (back and not stays) or (ahead and later and not stays):
            dropped["messages with a stamp from another time"] += 1
            continue
        if back:
            epochs.append([])
        epochs[-1].append((stamp, value))
        last = stamp if last is None or back else max(last, stamp)
    return epochs


def _first(parts: dict, epoch: int) -> int:
    stamps = [part[epoch][0][0] for part in parts.values() if len(part) > epoch and part[epoch]]
    return min(stamps, default=0)


def _track(epochs: list, epoch: int, start: int, dropped: Counter) -> Track:
    samples = sorted(epochs[epoch], key=lambda s: s[0]) if epoch < len(epochs) else []
    new = [s for i, s in enumerate(samples) if i == 0 or s[0] != samples[i - 1][0]]
    if len(new) < len(samples):
        dropped["messages with the stamp of another one"] += len(samples) - len(new)
    stamps = np.array([stamp for stamp, _ in new], np.int64)
    return Track((stamps - start) * 1e-9, stamps, [value for _, value in new])
