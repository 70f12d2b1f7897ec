"""Record, summary and report of a soak."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import percentiles
from jepa_ros.soak.memory import ProcessSamples, estimate_growth

MEMORY_WARM_UP = 300.0  # s of each process that memory slopes leave out; at most a quarter of the run
_PROCESS_ENDED = re.compile(r" (was ended by \w+|ended with code -?\d+); restarting")
_MAX = {"max": np.max}


@dataclass
class SoakRecord:
    """Everything recorded so far. rows: one for each fault, see ``SoakSession._test_fault``; ``survived`` is None if
    the run ended during it. observer: None before the graph was up. processes: by node."""

    minutes: float
    seed: int
    model: str
    robot: str
    load: int
    most_faults: int | None = None
    began: float = 0.0  # s since the epoch
    seconds: float = 0.0  # without the start of the nodes
    rows: list[dict] = field(default_factory=list)
    exits: list[dict] = field(default_factory=list)  # processes that ended: t (s), node, how
    restarts: Counter = field(default_factory=Counter)
    tracebacks: Counter = field(default_factory=Counter)
    goals: Mapping[str, int] = field(default_factory=Counter)
    processes: Mapping[str, list[ProcessSamples]] = field(default_factory=dict)
    load_averages: list[float] = field(default_factory=list)  # of the machine, over a minute
    observer: Any = None
    ended: str = ""  # why the run ended early; empty when it did not

    def add_line(self, name: str, line: str, now: float) -> None:
        """Record from a line of output that a node has ended or failed."""
        if found := _PROCESS_ENDED.search(line):
            self.exits.append({"t": now - self.began, "node": name, "how": found[1]})
        elif line.startswith("Traceback "):
            self.tracebacks[name] += 1


def summarise(record: SoakRecord) -> dict[str, Any]:
    """Return the contents of summary.json; None for what was not measured."""
    rows = [row for row in record.rows if row["survived"] is not None]
    observer = record.observer
    violations = observer.violations if observer is not None else []
    unexpected = [e for e in record.exits if not _expected(e, record.rows)]
    warm_up = min(MEMORY_WARM_UP, 0.25 * record.seconds)
    survived = sum(row["survived"] for row in rows)
    return {
        "passed": bool(rows) and survived == len(rows) and not violations and not unexpected and not record.ended,
        "minutes": record.minutes,
        "seconds": record.seconds,
        "ended_early": record.ended,
        "seed": record.seed,
        "model": record.model,
        "robot": record.robot,
        "load_processes": record.load,
        "cores": os.cpu_count(),
        "load_average": percentiles(record.load_averages, (50,), _MAX),
        "faults": len(rows),
        "survived": survived,
        "not_survived": [row for row in rows if not row["survived"]],
        "by_kind": _by_kind(rows),
        "violations": len(violations),
        "violation_list": [v | {"t": v["t"] - record.began} for v in violations[:100]],
        "windows": observer.windows if observer is not None else 0,
        "largest_step_rad": observer.step if observer is not None else None,
        "stop_ms": percentiles(_values(rows, "stop_ms"), (50, 99), _MAX),
        "caught_ms": percentiles(_values(rows, "caught_ms"), (50, 99), _MAX),
        "recovered_s": percentiles(_values(rows, "recovered_s"), (50, 99), _MAX),
        "unprovoked_stops": dict(observer.unprovoked) if observer is not None else {},
        "memory_warm_up_s": warm_up,
        "memory": {
            name: estimate_growth(processes, warm_up) | _memory_sizes(processes)
            for name, processes in record.processes.items()
        },
        "latency_ms": _latencies(record),
        "restarts": dict(record.restarts),
        "unexpected_exits": unexpected,
        "tracebacks": dict(record.tracebacks),
        "goals": {"sent": 0, "reached": 0} | dict(record.goals),
        "rows": record.rows,
    }


def _expected(exit_: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a process was ended by a fault, or ended itself while it restarted after one: a simulator refuses
    to start while the killed one is still announced."""
    restarts = [row for row in rows if row["restarts"] and row["target"] == exit_["node"]]
    ends = [row["t"] + row.get("lasted_s", 0.0) + (row.get("recovered_s") or 120.0) for row in restarts]
    return any(row["t"] <= exit_["t"] <= end for row, end in zip(restarts, ends, strict=True))


def _by_kind(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict]:
    groups: dict[str, list] = defaultdict(list)
    for row in rows:
        groups[_kind(row)].append(row)
    return {
        kind: {
            "faults": len(group),
            "survived": sum(row["survived"] for row in group),
            "stops": group[0]["stops"],
            "caught_ms": percentiles(_values(group, "caught_ms"), (50,), _MAX),
            "stop_ms": percentiles(_values(group, "stop_ms"), (50,), _MAX),
            "recovered_s": percentiles(_values(group, "recovered_s"), (50,), _MAX),
        }
        for kind, group in sorted(groups.items())
    }


def _kind(row: Mapping[str, Any]) -> str:
    return f"{row['fault']} {row['target']}".strip()


def _values(rows: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]


def _memory_sizes(processes: Sequence[ProcessSamples]) -> dict[str, float]:
    return {
        "mb": processes[-1].own[-1],
        "max_mb": max(max(p.own) for p in processes),
        "resident_mb": processes[-1].resident[-1],
        "max_resident_mb": max(max(p.resident) for p in processes),
    }


def _latencies(record: SoakRecord) -> dict[str, dict]:
    """Return percentiles of the latencies without a fault, and of all."""
    found = {}
    for name in ("latent", "plan", "window"):
        samples = record.observer.latencies[name] if record.observer is not None else []
        found[name] = percentiles([ms for _, ms, quiet in samples if quiet], (50, 99), _MAX)
        found[f"{name}_with_faults"] = percentiles([ms for _, ms, _ in samples], (50, 99), _MAX)
    return found


def write_report(record: SoakRecord, summary: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Write the report of a soak; ``summary`` is that of ``summarise``."""
    report = Report(
        "jepa_ros soak",
        f"{record.seconds / 60:.0f} of {record.minutes:g} minutes · seed {record.seed} · model {record.model} · "
        f"robot {record.robot} · {record.load} processes of load on {summary['cores']} cores",
    )
    if record.ended:
        report.text(f"**The run ended early:** {record.ended}. The results cover the time until then.")
    stops, window = summary["stop_ms"], summary["latency_ms"]["window"]
    report.tiles(
        {
            "faults survived": f"{summary['survived']} of {summary['faults']}",
            "violations": summary["violations"],
            "windows checked": summary["windows"],
            "stop, p50": _unit(stops["p50"], "ms"),
            "stop, p99": _unit(stops["p99"], "ms"),
            "frame to controller, p99": _unit(window["p99"], "ms"),
            "goals reached": summary["goals"]["reached"],
            "unexpected exits": len(summary["unexpected_exits"]),
        },
        good={
            "faults survived": summary["survived"] == summary["faults"] > 0,
            "violations": not summary["violations"],
            "unexpected exits": not summary["unexpected_exits"],
        },
    )
    report.text(
        "A fault is **survived** if nothing that the controller received broke a limit or jumped, the arm stopped in "
        "time if the fault was a reason to stop, and it tracked a plan again afterwards. **Caught**: the gate left "
        "TRACKING. **Stop**: from the fault to the end of the last motion sent. **Recovered**: from the end of the "
        "fault until a plan was tracked again."
    )
    _add_faults(report, record, summary)
    _add_latencies(report, record, summary)
    _add_memory(report, record, summary)
    if summary["violation_list"]:
        rows = [(round(v["t"], 2), v["text"]) for v in summary["violation_list"]]
        report.section("Violations").table(rows, ["at (s)", "violation"])
    report.section("Every fault").table(
        {
            "at (s)": round(row["t"], 1),
            "fault": _kind(row),
            "survived": row["survived"],
            "caught (ms)": _rounded(row.get("caught_ms")),
            "stop (ms)": _rounded(row.get("stop_ms")),
            "recovered (s)": row.get("recovered_s"),
            "code": row.get("code", ""),
            "reason": row.get("said", "")[:120],
        }
        for row in record.rows
    )
    return report.write(path)


def _add_faults(report: Report, record: SoakRecord, summary: Mapping[str, Any]) -> None:
    report.section("Faults by kind").table(
        {
            "fault": kind,
            "survived": f"{data['survived']} of {data['faults']}",
            "caught, p50 (ms)": _rounded(data["caught_ms"]["p50"]),
            "stop, p50 (ms)": _rounded(data["stop_ms"]["p50"]),
            "stop, max (ms)": _rounded(data["stop_ms"]["max"]),
            "recovered, p50 (s)": data["recovered_s"]["p50"],
            "recovered, max (s)": data["recovered_s"]["max"],
        }
        for kind, data in summary["by_kind"].items()
    )
    stops = _values(record.rows, "stop_ms")
    if stops:
        marks = {f"p{p}": float(np.percentile(stops, p)) for p in (50, 99)}
        report.plot(plots.histogram(stops, x="ms", marks=marks), "From a fault to the end of the last motion sent.")


def _add_latencies(report: Report, record: SoakRecord, summary: Mapping[str, Any]) -> None:
    if record.observer is None:
        return
    series = {}
    for name, latencies in record.observer.latencies.items():
        minutes: dict[int, list[float]] = defaultdict(list)
        for t, ms, quiet in latencies:
            if quiet:
                minutes[int((t - record.began) // 60)].append(ms)
        if minutes:
            series[name] = [m + 0.5 for m in sorted(minutes)], [float(np.median(minutes[m])) for m in sorted(minutes)]
    if series:
        caption = "From a frame's stamp; the median of each minute, without the time of faults."
        report.section("Latency").plot(plots.lines(series, x="minutes", y="ms"), caption)
    report.table(
        {"from the frame to the": name.replace("_", " "), **{f"{key} (ms)": value for key, value in data.items()}}
        for name, data in summary["latency_ms"].items()
    )


def _add_memory(report: Report, record: SoakRecord, summary: Mapping[str, Any]) -> None:
    if not record.processes:
        return
    curves = {}
    for name, processes in record.processes.items():
        xs, ys = [], []
        for p in processes:
            xs += [(p.began + t - record.began) / 60 for t in p.times] + [float("nan")]
            ys += [*p.own, float("nan")]
        curves[name] = xs, ys
    report.section("Memory").plot(
        plots.lines(curves, x="minutes", y="own memory (MB)"), "Without files and shared memory. Gaps are restarts."
    )
    report.table(
        {
            "node": name,
            "own, at the end (MB)": data["mb"],
            "own, max (MB)": data["max_mb"],
            "resident, max (MB)": data["max_resident_mb"],
            "slope (MB/h)": data["mb_per_h"],
            "upper 95 % bound (MB/h)": data["upper95_mb_per_h"],
            "processes used": f"{data['lives_used']} of {data['lives']}",
            "hours": data["hours"],
        }
        for name, data in summary["memory"].items()
    )
    report.text(
        f"One slope for all processes of a node, each with its own level, without the first "
        f"{summary['memory_warm_up_s']:.0f} s of each; the bound accounts for the correlation of successive samples."
    )


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.0f} {unit}"


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
