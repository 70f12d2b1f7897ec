"""`jepa_ros data inspect`: what a bag holds, and a drafted mapping with a reason for every choice."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jepa_ros.bags.recovery import Rescued
from jepa_ros.bags.source import Source, open_source
from jepa_ros.bags.typestore import typestore
from jepa_ros.datasets.drafting import Sample, draft
from jepa_ros.datasets.mapping import read_mapping
from jepa_ros.errors import InputError

GAP = 2.5
"""Median periods between two messages from which they count as a gap."""
SAMPLES = 200
"""Messages of a topic that are looked into for a draft, evenly spread as they come."""


@dataclass(frozen=True)
class TopicFigures:
    """One topic. rate: Hz, of the median period of its stamps. gaps: number; longest_gap: s. back: times that stamps go
    back. offset: median of stamp less time of recording, s; None without a header."""

    topic: str
    type: str
    count: int
    rate: float | None = None
    duration: float = 0.0
    gaps: int = 0
    longest_gap: float = 0.0
    back: int = 0
    offset: float | None = None


def run(*, bag: Path, write: Path | None = None, as_json: bool = False) -> int:
    """Print the figures and the draft; 2 where not all of the bag can be read. Raises InputError."""
    bag = Path(bag)
    if write is not None and Path(write).exists():
        raise InputError(f"write {write}: expected a file that is not there yet, found one")
    with open_source(bag) as source:
        topics, samples = look(source)
        problems = list(dict.fromkeys(source.problems))
    drafted, reason = draft(bag, samples)
    if as_json:
        found = {"bag": bag.name, "topics": [asdict(t) for t in topics], "problems": problems}
        print(json.dumps(found | {"mapping": drafted}, indent=2))
    else:
        _table(bag, topics)
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
    return 2 if problems else 0


def look(source: Source) -> tuple[list[TopicFigures], dict[str, Sample]]:
    """Figures of every topic, and messages of it to draft a mapping from."""
    there = {t.topic: (t.msgtype, t.count) for t in source.topics}
    stamps: dict[str, list[tuple[int, int]]] = {topic: [] for topic in there}
    samples = {topic: Sample(kind, count) for topic, (kind, count) in there.items()}
    for raw in source.messages({(t.topic, t.msgtype) for t in source.topics}):
        sample, known = samples[raw.topic], stamps[raw.topic]
        if len(known) % max(1, sample.count // SAMPLES) == 0 and sample.wanted(raw.msgtype):
            sample.add(raw)
        known.append((_stamp(raw), raw.recorded))
    return [_figures(topic, *there[topic], known) for topic, known in stamps.items()], samples


def _stamp(raw: Rescued) -> int:
    """ns in the header where the type has one, at its beginning; 0 otherwise."""
    if not _has_header(raw.msgtype) or len(raw.data) < 12 or raw.data[0] != 0:
        return 0
    little = "little" if raw.data[1] & 1 else "big"
    seconds, rest = (int.from_bytes(raw.data[i : i + 4], little) for i in (4, 8))
    return seconds * 10**9 + rest


def _has_header(kind: str) -> bool:
    fields = typestore().fielddefs.get(kind)
    return bool(fields and fields[1] and fields[1][0][0] == "header")


def _figures(topic: str, kind: str, count: int, known: list[tuple[int, int]]) -> TopicFigures:
    if len(known) < 2:
        return TopicFigures(topic, kind, count)
    stamp, recorded = np.array(known, np.int64).T
    stamped = bool((stamp > 0).all())
    times = stamp if stamped else recorded
    steps = np.diff(times) * 1e-9
    onwards = steps[steps > 0]
    period = float(np.median(onwards)) if len(onwards) else 0.0
    gaps = onwards[onwards > GAP * period] if period else onwards[:0]
    return TopicFigures(
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


def _table(bag: Path, topics: list[TopicFigures]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(bag))
    for name in ("topic", "type"):
        table.add_column(name, overflow="fold")
    for name in ("messages", "Hz", "gaps", "longest s", "stamps back", "stamp - recorded s"):
        table.add_column(name, justify="right")
    for t in topics:
        rate = "" if t.rate is None else f"{t.rate:.4g}"
        longest, offset = f"{t.longest_gap:.3g}" if t.gaps else "", "" if t.offset is None else f"{t.offset:.3g}"
        numbers = [str(t.count), rate, str(t.gaps or ""), longest, str(t.back or ""), offset]
        table.add_row(t.topic, t.type, *numbers)
    Console().print(table)
