"""`jepa_ros data inspect`: topics, rates and gaps of a bag, and a drafted mapping with a reason for every choice."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.bags.typestore import serialised_stamp, typestore
from jepa_ros.datasets.drafting import TopicSample, draft_mapping
from jepa_ros.datasets.mapping import read_mapping
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_file
from jepa_ros.reporting.result import print_result, print_table

GAP_PERIODS = 2.5  # median periods between two messages from which they count as a gap
SAMPLES = 200  # messages of a topic that a draft is based on, evenly spread over the recording


@dataclass(frozen=True)
class TopicStatistics:
    """Statistics of one topic.

    rate: Hz, from the median period of its stamps. gaps: number. longest_gap: s. back: number of stamps before the
    previous one. offset: median of stamp minus time of recording in s; None without a header.
    """

    topic: str
    type: str
    count: int
    rate: float | None = None
    duration: float = 0.0
    gaps: int = 0
    longest_gap: float = 0.0
    back: int = 0
    offset: float | None = None


def inspect_bag(*, bag: Path, write: Path | None = None, as_json: bool = False) -> int:
    """Print statistics and the drafted mapping, and write it to the file `write`, which must not exist.

    Returns 2 where the bag cannot be read completely. Raises InputError.
    """
    bag = Path(bag)
    if write is not None and Path(write).exists():
        raise InputError(f"write {write}: expected a file that is not there yet, found one")
    if write is not None:
        prepare_file(write, "--write")
    with open_bag(bag) as opened:
        topics, samples = read_topics(opened)
        problems = list(dict.fromkeys(opened.problems))
    drafted, reason = draft_mapping(bag, samples)
    if as_json:
        found = {"bag": bag.name, "topics": [asdict(t) for t in topics], "problems": problems}
        print(json.dumps(found | {"mapping": drafted}, indent=2))
    else:
        _print_table(bag, topics)
        print(drafted or f"No mapping can be drafted: {reason}")
    for problem in problems:
        print(f"jepa_ros: {problem}", file=sys.stderr)
    if not topics or not any(t.count for t in topics):
        raise InputError(f"bag {bag}: expected messages, found none that can be read")
    if write is not None:
        if drafted is None:
            raise InputError(f"bag {bag}: {reason}")
        Path(write).parent.mkdir(parents=True, exist_ok=True)
        Path(write).write_text(drafted, encoding="utf-8")
        read_mapping(Path(write))
        if not as_json:
            print_result("mapping drafted", ["check each choice before data build"], [write])
    return 2 if problems else 0


def read_topics(bag: Bag) -> tuple[list[TopicStatistics], dict[str, TopicSample]]:
    """Return statistics of every topic, and some of its messages to draft a mapping from."""
    there = {t.topic: (t.msgtype, t.count) for t in bag.topics}
    stamps: dict[str, list[tuple[int, int]]] = {topic: [] for topic in there}
    samples = {topic: TopicSample(kind, count) for topic, (kind, count) in there.items()}
    for raw in bag.messages(bag.topics):
        sample, known = samples[raw.topic], stamps[raw.topic]
        if len(known) % max(1, sample.count // SAMPLES) == 0 and sample.is_useful:
            sample.add(raw)
        known.append((_stamp(raw), raw.recorded))
    return [_statistics(topic, *there[topic], known) for topic, known in stamps.items()], samples


def _stamp(raw: RawMessage) -> int:
    """Return the header's stamp in ns where the type starts with a header; otherwise 0."""
    fields = typestore().fielddefs.get(raw.msgtype)
    if not (fields and fields[1] and fields[1][0][0] == "header"):
        return 0
    try:
        return serialised_stamp(raw.data)
    except ValueError:
        return 0


def _statistics(topic: str, kind: str, count: int, known: list[tuple[int, int]]) -> TopicStatistics:
    if len(known) < 2:
        return TopicStatistics(topic, kind, count)
    stamp, recorded = np.array(known, np.int64).T
    stamped = bool((stamp > 0).all())
    times = stamp if stamped else recorded
    steps = np.diff(times) * 1e-9
    forward = steps[steps > 0]
    period = float(np.median(forward)) if len(forward) else 0.0
    gaps = forward[forward > GAP_PERIODS * period] if period else forward[:0]
    return TopicStatistics(
        topic,
        kind,
        count,
        1 / period if period else None,
        float(times.max() - times.min()) * 1e-9,
        len(gaps),
        float(gaps.max(initial=0.0)),
        int((steps < 0).sum()),
        float(np.median(stamp - recorded)) * 1e-9 if stamped else None,
    )


def _print_table(bag: Path, topics: list[TopicStatistics]) -> None:
    def shown(value: float | None) -> str:
        return f"{value:.4g}" if value else ""

    columns = ("topic", "type", "messages", "Hz", "gaps", "longest s", "stamps back", "stamp - recorded s")
    rows = [
        (t.topic, t.type, t.count, *map(shown, (t.rate, t.gaps, t.longest_gap if t.gaps else None, t.back)), _offset(t))
        for t in topics
    ]
    print_table(columns, rows, str(bag))


def _offset(topic: TopicStatistics) -> str:
    return "" if topic.offset is None else f"{topic.offset:.3g}"
