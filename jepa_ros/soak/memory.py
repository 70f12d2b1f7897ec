"""Memory of node processes over time, and whether it grows."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Z95 = 1.645  # one-sided 95 % quantile of the normal distribution
FEWEST = 12  # samples of one life below which it says nothing about a slope


def memory_mb(pid: int) -> tuple[float, float] | None:
    """(own, resident) memory of a process in MB; None where there is no such process any more.

    own: pages of its heap and stacks, where a leak shows. resident: also files and shared memory, of which DDS maps
    some for every process that it talks to.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    kb = dict(re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", text, re.MULTILINE))
    return (int(kb["RssAnon"]) / 1e3, int(kb["VmRSS"]) / 1e3) if len(kb) == 2 else None  # a zombie has neither


@dataclass
class Life:
    """One process of a node, from its start to its end: sample times s since that start, own and resident MB."""

    pid: int
    began: float
    times: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)


class MemoryLog:
    """Samples of every node's memory, one ``Life`` for each process that it was."""

    def __init__(self) -> None:
        self.lives: dict[str, list[Life]] = {}

    def sample(self, pids: dict[str, int], now: float) -> None:
        """Note what the processes ``pids`` (by name) take at time now (s)."""
        for name, pid in pids.items():
            taken = memory_mb(pid)
            if taken is None:
                continue
            lives = self.lives.setdefault(name, [])
            if not lives or lives[-1].pid != pid:
                lives.append(Life(pid, now))
            lives[-1].times.append(now - lives[-1].began)
            lives[-1].mb.append(taken[0])
            lives[-1].resident.append(taken[1])


def write_samples(lives: Mapping[str, Sequence[Life]], began: float, path: Path) -> None:
    """All samples as CSV: node, process id, s since `began`, own and resident MB."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("node", "pid", "s", "own_mb", "resident_mb"))
        for name, found in lives.items():
            for life in found:
                for t, mb, resident in zip(life.times, life.mb, life.resident, strict=True):
                    table.writerow((name, life.pid, round(life.began + t - began, 1), mb, resident))


def growth(lives: Sequence[Life], warm_up: float) -> dict[str, float | int | None]:
    """By how much a node's own memory grows: ``mb_per_h`` and its upper 95 % bound ``upper95_mb_per_h``.

    The first ``warm_up`` s of each life are left out, and the last sample of each that another one followed: a process
    that is ending gives its memory back. One slope is fitted by least squares to what is left of all
    lives, each with a level of its own: a restart is neither a leak nor a gain. Samples that follow one another are
    alike, so the bound is widened by the residuals' correlation from sample to sample; without that it would be far
    too narrow. None where no life is long enough.
    """
    kept = []
    for number, life in enumerate(lives, start=1):
        end = -1 if number < len(lives) else None
        t, mb = np.array(life.times[:end]), np.array(life.mb[:end])
        late = t >= warm_up
        if late.sum() >= FEWEST:
            kept.append((t[late] / 3600.0, mb[late]))
    none = {"mb_per_h": None, "upper95_mb_per_h": None, "lives": len(lives), "lives_used": 0, "hours": 0.0}
    if not kept:
        return none
    t = np.concatenate([t - t.mean() for t, _ in kept])
    y = np.concatenate([mb - mb.mean() for _, mb in kept])
    spread = float(t @ t)
    slope = float(t @ y) / spread
    residuals = [mb - mb.mean() - slope * (t - t.mean()) for t, mb in kept]
    freedom = len(t) - len(kept) - 1
    error = math.sqrt(sum(float(r @ r) for r in residuals) / freedom / spread)
    error *= math.sqrt(_inflation(residuals))
    return {
        "mb_per_h": slope,
        "upper95_mb_per_h": slope + Z95 * error,
        "lives": len(lives),
        "lives_used": len(kept),
        "hours": float(sum(t[-1] - t[0] for t, _ in kept)),
    }


def _inflation(residuals: Sequence[np.ndarray]) -> float:
    """By how much correlation from one sample to the next (lag 1) widens a variance: (1 + r) / (1 - r)."""
    power = sum(float(r @ r) for r in residuals)
    if power <= 0.0:
        return 1.0
    r = sum(float(x[1:] @ x[:-1]) for x in residuals) / power
    r = min(max(r, 0.0), 0.99)
    return (1.0 + r) / (1.0 - r)
