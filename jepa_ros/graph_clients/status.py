"""`jepa_ros status`: nodes, gate, planner and cameras of a running graph, as a table or as JSON."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from jepa_ros.bringup.running_graphs import RunningGraph, join_graph
from jepa_ros.bringup.up import on_signals
from jepa_ros.graph_clients.session import RclpySession, Stopped

if TYPE_CHECKING:
    from jepa_ros.graph_clients.graph_listener import GraphListener

DISCOVERY_TIMEOUT = 5.0  # s in which a graph must be found
COMPLETE_TIMEOUT = 6.0  # s in which the states of all nodes and their diagnostics, which come at 1 Hz, must be known
STABLE_FOR = 1.0, 3.5  # s without a new node after which all are taken to be known: with all of CORE, and without
CORE = {"camera", "world_model", "planner", "arm_gate"}
SILENT_AFTER = 1.0  # s without gate_status or planner_status after which the last one is out of date
REFRESH_PERIOD = 0.5  # s
LOG_PERIOD = 1.0  # s between two outputs where they are not written over
LEVELS = {b"\x00": "ok", b"\x01": "warning", b"\x02": "error", b"\x03": "stale"}
_STYLES = {"ok": "green", "warning": "yellow", "error": "red", "stale": "red"}


def show_status(once: bool = False, as_json: bool = False, namespace: str = "", domain: int | None = None) -> int:
    """Show the status of a graph until Ctrl-C, or once.

    Returns 0 where all nodes are active and the gate is not latched, otherwise 1. Raises InputError where there is no
    graph.
    """
    stop, graph = threading.Event(), join_graph(domain, namespace)
    with on_signals(stop.set), RclpySession("status_client", graph.namespace, passive=True) as session:
        from jepa_ros.graph_clients.graph_listener import GraphListener

        listener = GraphListener(session.node)
        try:
            if not session.wait_for(listener.discover_nodes, DISCOVERY_TIMEOUT, stop.is_set):
                raise graph.not_found("nodes")
            if once:
                session.wait_for(_Completeness(listener), COMPLETE_TIMEOUT, stop.is_set)
        except Stopped:
            return 130
        with _open_output(once, as_json) as (show, period):
            while True:
                status = read_status(listener, graph)
                show(status)
                if once or session.wait_for(stop.is_set, period):
                    return 0 if status["ok"] else 1
                listener.discover_nodes()


def read_status(listener: GraphListener, graph: RunningGraph) -> dict[str, Any]:
    """Return all that is known of a graph, as JSON takes it; None where a value is not known."""
    nodes = [_read_node(listener, name) for name in listener.names]
    gate, planner = _read_gate(listener), _read_planner(listener)
    active = bool(nodes) and all(node["state"] == "active" for node in nodes)
    return {
        "ok": active and (gate is None or gate["state"] != "LATCHED"),
        "domain": graph.domain,
        "namespace": graph.namespace or "/",
        "nodes": nodes,
        "gate": gate,
        "planner": planner,
        "cameras": _read_cameras(listener),
    }


class _Completeness:
    """Called until it returns that all nodes have been discovered and everything about them was received."""

    def __init__(self, listener: GraphListener) -> None:
        self._listener, self._names, self._since = listener, [], time.monotonic()

    def __call__(self) -> bool:
        listener, now = self._listener, time.monotonic()
        names = listener.discover_nodes()
        if names != self._names:
            self._names, self._since = names, now
        known = all(name in listener.states and listener.diagnostics_of(name) for name in names)
        at = {"arm_gate": listener.gate_at, "planner": listener.planner_at}
        received = all(math.isfinite(at[name]) for name in names if name in at)
        return known and received and now - self._since > STABLE_FOR[not set(names) >= CORE]


def _read_node(listener: GraphListener, name: str) -> dict[str, Any]:
    found = []
    for status in listener.diagnostics_of(name):
        level = LEVELS.get(status.level, "error")
        found.append({"name": status.name.partition(": ")[2], "level": level, "message": status.message})
    return {"name": name, "state": listener.states.get(name), "diagnostics": found}


def _read_gate(listener: GraphListener) -> dict[str, Any] | None:
    from jepa_ros.robot.gate.types import GateCode, GateState

    if (m := listener.gate) is None:
        return None
    figures = ("speed_scale", "latent_age_ms", "joint_age_ms", "following_error", "min_distance")
    found = _read_message(m, listener.gate_at, GateState, GateCode, ("plan_id", "rejected", "stops"), figures)
    return found | {"rejection_code": _name(GateCode, m.rejection_code)}


def _read_planner(listener: GraphListener) -> dict[str, Any] | None:
    from jepa_ros.planning.codes import PlannerCode

    if (m := listener.planner) is None:
        return None
    states = IntEnum("State", "INACTIVE IDLE WAITING PLANNING REACHED FAILED", start=0)
    figures = ("plan_ms", "deadline_ms", "slack_ms", "distance")
    return _read_message(m, listener.planner_at, states, PlannerCode, ("plan_id", "misses"), figures)


def _read_message(message, at: float, states, codes, counters: Sequence[str], figures: Sequence[str]) -> dict[str, Any]:
    """Return gate_status or planner_status as JSON takes it. at: s since the epoch."""
    return {
        "state": _name(states, message.state),
        "code": _name(codes, message.code),
        "text": message.text,
        "age_s": time.time() - at,
        **{name: getattr(message, name) for name in counters},
        **{name: _finite(getattr(message, name)) for name in figures},
    }


def _read_cameras(listener: GraphListener) -> list[dict[str, Any]]:
    """Rates that camera nodes report in their diagnostics."""
    found = []
    for name in listener.names:
        for status in listener.diagnostics_of(name):
            values = {pair.key: pair.value for pair in status.values}
            if "passed_hz" in values:
                numbers = {key: _number(values.get(key)) for key in ("received_hz", "passed_hz", "dropped", "age_ms")}
                found.append({"node": name, "source": values.get("source", ""), **numbers})
    return found


def _name(codes: type, value: int) -> str | int:
    """Return a code's name; the number where it is of a newer version."""
    return codes(value).name if value in codes._value2member_map_ else value


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _number(text: str | None) -> float | None:
    try:
        return _finite(float(text))
    except (TypeError, ValueError):
        return None


# -- output ------------------------------------------------------------------------------------------------------------


@contextmanager
def _open_output(once: bool, as_json: bool) -> Iterator[tuple[Callable[[dict[str, Any]], None], float]]:
    """Yield a function that shows a status, and the time in s between two calls of it."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if as_json:
        yield lambda status: print(json.dumps(status), flush=True), LOG_PERIOD
    elif once or not console.is_terminal:
        yield lambda status: console.print(make_table(status)), LOG_PERIOD
    else:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda status: live.update(make_table(status), refresh=True), REFRESH_PERIOD


def make_table(status: dict[str, Any]):
    """Return a status as a table for rich: one row for each node, then gate, planner and cameras."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), title=f"ROS domain {status['domain']}, namespace {status['namespace']}")
    table.title_justify = "left"
    for column in ("", "state", "details"):
        table.add_column(column)
    for node in status["nodes"]:
        state = node["state"] or "no answer"
        worst = max(reversed(node["diagnostics"]), key=lambda d: list(_STYLES).index(d["level"]), default=None)
        style = "green" if state == "active" else "red"
        details = Text("") if worst is None else Text(worst["message"], _STYLES[worst["level"]])
        table.add_row(node["name"], Text(state, style), details)
    for name in ("gate", "planner"):
        part, name = status[name], f"{name}_status"
        if part is None:
            table.add_row(name, Text("not received", "red"), "")
            continue
        silent = part["age_s"] > SILENT_AFTER
        code = "" if part["code"] == "NONE" else f" ({part['code']})"
        state = Text(f"{part['state']}", "red" if part["state"] in ("LATCHED", "FAILED") or silent else "green")
        age = f"; last status {part['age_s']:.0f} s ago" if silent else ""
        table.add_row(name, state, f"{part['text']}{code}{age}")
    for camera in status["cameras"]:
        passed, received = (camera[k] for k in ("passed_hz", "received_hz"))
        rate = "no rate yet" if passed is None else f"{passed:.1f} of {received:.1f} frames/s pass"
        table.add_row("frames", camera["node"], f"{rate}, {camera['source']}".rstrip(", "))
    return table
