"""Memory of node processes: samples over time, and an estimate of growth."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Z95 = 1.645  # one-sided 95 % quantile of the normal distribution
MIN_SAMPLES = 12  # of a process whose slope is estimated


def memory_mb(pid: int) -> tuple[float, float] | None:
    """Return own and resident memory of a process in MB; None if it does not exist any more.

    own: pages of heap and stacks, where leaks show. resident: also files and shared memory, of which DDS maps some for
    every process that it communicates with.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    kb = dict(re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", text, re.MULTILINE))
    return (int(kb["RssAnon"]) / 1e3, int(kb["VmRSS"]) / 1e3) if len(kb) == 2 else None  # a zombie has neither


@dataclass
class ProcessSamples:
    """Samples of one process of a node: times in s since its start, own and resident memory in MB."""

    pid: int
    began: float
    times: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)


class MemoryLog:
    """Memory samples of every node; ``processes`` has one ``ProcessSamples`` for each process that a node had."""

    def __init__(self) -> None:
        self.processes: dict[str, list[ProcessSamples]] = {}

    def sample(self, pids: dict[str, int], now: float) -> None:
        """Sample the memory of the processes ``pids`` (by name) at time now (s)."""
        for name, pid in pids.items():
            memory = memory_mb(pid)
            if memory is None:
                continue
            processes = self.processes.setdefault(name, [])
            if not processes or processes[-1].pid != pid:
                processes.append(ProcessSamples(pid, now))
            processes[-1].times.append(now - processes[-1].began)
            processes[-1].own.append(memory[0])
            processes[-1].resident.append(memory[1])


def write_samples(nodes: Mapping[str, Sequence[ProcessSamples]], began: float, path: Path) -> None:
    """Write all samples as CSV: node, process id, s since `began`, own and resident MB."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("node", "pid", "s", "own_mb", "resident_mb"))
        for name, processes in nodes.items():
            for p in processes:
                for t, own, resident in zip(p.times, p.own, p.resident, strict=True):
                    table.writerow((name, p.pid, round(p.began + t - began, 1), own, resident))


def estimate_growth(processes: Sequence[ProcessSamples], warm_up: float) -> dict[str, float | int | None]:
    """Estimate how fast a node's own memory grows: ``mb_per_h`` and its upper 95 % bound ``upper95_mb_per_h``.

    Left out are the first ``warm_up`` s of each process, and the last sample of each process that was followed by
    another: a process that is ending releases its memory. One slope is fitted by least squares to the rest of all
    processes, each with its own level, so that a restart is neither a leak nor a gain. Successive samples are
    correlated, so the bound is widened by the lag-1 correlation of the residuals; without that it would be far too
    narrow. None if no process lived long enough.
    """
    kept = []
    for number, p in enumerate(processes, start=1):
        end = -1 if number < len(processes) else None
        t, mb = np.array(p.times[:end]), np.array(p.own[:end])
        late = t >= warm_up
        if late.sum() >= MIN_SAMPLES:
            kept.append((t[late] / 3600.0, mb[late]))
    if not kept:
        unknown = {"mb_per_h": None, "upper95_mb_per_h": None}
        return unknown | {"lives": len(processes), "lives_used": 0, "hours": 0.0}
    t = np.concatenate([t - t.mean() for t, _ in kept])
    y = np.concatenate([mb - mb.mean() for _, mb in kept])
    spread = float(t @ t)
    slope = float(t @ y) / spread
    residuals = [mb - mb.mean() - slope * (t - t.mean()) for t, mb in kept]
    power = sum(float(r @ r) for r in residuals)
    error = math.sqrt(power / (len(t) - len(kept) - 1) / spread)
    if power > 0.0:  # a lag-1 correlation widens the variance by (1 + r) / (1 - r)
        correlation = min(max(sum(float(r[1:] @ r[:-1]) for r in residuals) / power, 0.0), 0.99)
        error *= math.sqrt((1.0 + correlation) / (1.0 - correlation))
    return {
        "mb_per_h": slope,
        "upper95_mb_per_h": slope + Z95 * error,
        "lives": len(processes),
        "lives_used": len(kept),
        "hours": float(sum(t[-1] - t[0] for t, _ in kept)),
    }
