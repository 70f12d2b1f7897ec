"""Segments of a bag: cut at episode markers and where the clock jumps, so that all stamps in one are comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.datasets.signals import Marker, Series, Signals

CLOCK_SET_BACK_S = 1.0  # a stamp this long before the previous one means that the clock was set back
STRAY_STAMP_S = 3600.0  # a single stamp this far ahead of its neighbours is garbage
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Track:
    """Samples of one topic in a segment, ordered by stamp. times: (n,) s from the segment's start. stamps: (n,) ns.
    values: a list of n."""

    times: np.ndarray
    stamps: np.ndarray
    values: list

    def array(self) -> np.ndarray:
        """Return the values as (n, D) float."""
        return np.array(self.values, float)


@dataclass(frozen=True)
class Segment:
    """The samples between two markers without a jump of the clock.

    number: of the episode in the bag. split: empty where no marker states it. start: ns that `Track.times` count from.
    """

    number: int
    split: str
    task: str
    start: int
    views: list[Track]
    states: Track
    actions: Track
    objects: dict[str, Track] = field(default_factory=dict)


def split_into_segments(signals: Signals, dropped: Counter) -> Iterator[Segment]:
    """Yield the segments of a bag in the order of recording; messages that belong to none are counted in `dropped`."""
    markers = sorted(signals.markers, key=lambda m: m.order)
    if not markers:
        first = signals.views[0]
        markers = [Marker(-1, first.stamps[0], 0, "", "")]
    elif before := sum(order < markers[0].order for order in signals.views[0].order):
        dropped["images before the first episode"] += before
    ends = [*(m.order for m in markers[1:]), np.iinfo(np.int64).max]
    every = {("view", k): series for k, series in enumerate(signals.views)}
    every |= {"states": signals.states, "actions": signals.actions}
    every |= {("object", name): series for name, series in signals.objects.items()}
    orders = {key: np.array(series.order, np.int64) for key, series in every.items()}
    number = -1
    for marker, end in zip(markers, ends, strict=True):
        parts = {
            key: _split_at_clock_jumps(_between(series, orders[key], marker.order, end), dropped)
            for key, series in every.items()
        }
        for epoch in range(max(map(len, parts.values()))):
            number += 1
            # Before the clock was set back, times count from the marker; afterwards, from the first sample.
            start = marker.stamp if epoch == 0 else _first_stamp(parts, epoch)
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
    """Return (stamp, value) of the messages recorded between the messages number low and high."""
    begin, end = np.searchsorted(order, low, "right"), np.searchsorted(order, high, "left")
    return list(zip(series.stamps[begin:end], series.values[begin:end], strict=True))


def _split_at_clock_jumps(samples: list[tuple[int, object]], dropped: Counter) -> list[list[tuple[int, object]]]:
    """Split samples where time jumps back and stays there; a single stray stamp is dropped."""
    epochs: list[list[tuple[int, object]]] = [[]]
    last = None
    for index, (stamp, value) in enumerate(samples):
        later = [s for s, _ in samples[index + 1 : index + 3]]
        back = last is not None and stamp < last - CLOCK_SET_BACK_S * 1e9
        ahead = not back and (last is None or stamp > last + STRAY_STAMP_S * 1e9)
        stays = bool(later) and (
            later[0] <= last - CLOCK_SET_BACK_S * 1e9 if back else max(later) >= stamp - STRAY_STAMP_S * 1e9
        )
        if (back and not stays) or (ahead and later and not stays):
            dropped["messages with a stray stamp"] += 1
            continue
        if back:
            epochs.append([])
        epochs[-1].append((stamp, value))
        last = stamp if last is None or back else max(last, stamp)
    return epochs


def _first_stamp(parts: dict, epoch: int) -> int:
    stamps = [part[epoch][0][0] for part in parts.values() if len(part) > epoch and part[epoch]]
    return min(stamps, default=0)


def _track(epochs: list, epoch: int, start: int, dropped: Counter) -> Track:
    samples = sorted(epochs[epoch], key=lambda s: s[0]) if epoch < len(epochs) else []
    distinct = [s for i, s in enumerate(samples) if i == 0 or s[0] != samples[i - 1][0]]
    if len(distinct) < len(samples):
        dropped["messages with a repeated stamp"] += len(samples) - len(distinct)
    stamps = np.array([stamp for stamp, _ in distinct], np.int64)
    return Track((stamps - start) * 1e-9, stamps, [value for _, value in distinct])


def split_of(number: int, count: int = 20) -> str:
    """Return train, val or test for episode or bag `number` of `count` without a split of its own.

    A twentieth each is val and test, at least one where there are three or more.
    """
    if count >= 20:
        return {7: "val", 13: "test"}.get(number % 20, "train")
    return {count - 2: "val", count - 1: "test"}.get(number, "train") if count >= 3 else "train"
