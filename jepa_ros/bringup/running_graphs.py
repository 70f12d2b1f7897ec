"""Graphs that run on this machine, so that other commands can join them.

A simulated graph has a ROS domain of its own. `jepa_ros up` writes it to a file while it runs, and `jepa_ros goal`,
`stop` and `status` read that file to find the graph.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jepa_ros.bringup.environment import ensure
from jepa_ros.errors import InputError

_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"


@dataclass(frozen=True)
class RunningGraph:
    """command: as the user typed it. domain: ROS_DOMAIN_ID. discovery_range: ROS_AUTOMATIC_DISCOVERY_RANGE or ""."""

    command: str
    domain: int
    discovery_range: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f"`jepa_ros {self.command}` in ROS domain {self.domain}"

    def not_found(self, what: str) -> InputError:
        """Return the error that something was not found in this graph."""
        where = f"ROS domain {self.domain}, namespace {self.namespace or '/'}"
        return InputError(
            f"no {what} found in {where}: start a graph (jepa_ros up sim), or give --domain and --namespace"
        )


@contextmanager
def announce(command: str, environment: Mapping[str, str], namespace: str = "") -> Iterator[None]:
    """List a graph while the block runs, if its file can be written. environment: that of its nodes."""
    domain = environment.get("ROS_DOMAIN_ID", "")
    graph = RunningGraph(command, int(domain) if domain.isdigit() else 0, environment.get(_RANGE, ""), namespace)
    path = _folder() / f"{os.getpid()}.json"
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(json.dumps(asdict(graph)))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_graphs() -> list[RunningGraph]:
    """Return the graphs of this user on this machine whose command still runs."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        try:
            if path.stat().st_uid == os.getuid() and Path(f"/proc/{int(path.stem)}").exists():
                found.append(RunningGraph(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # just ended, or not written by this program
            continue
    return sorted(found, key=lambda graph: graph.domain)


def join_graph(domain: int | None = None, namespace: str = "") -> RunningGraph:
    """Set this process's environment so that its node joins a graph; call it before rclpy is imported.

    domain: None for the shell's ROS_DOMAIN_ID if set, else that of the only graph on this machine, else 0.
    namespace: empty for that of the graph found. Raises InputError where several graphs run.
    """
    graphs = running_graphs()
    if domain is None and os.environ.get("ROS_DOMAIN_ID", "").isdigit():
        domain = int(os.environ["ROS_DOMAIN_ID"])
    if domain is not None:
        graphs = [graph for graph in graphs if graph.domain == domain]
    if namespace:
        wanted = namespace.strip("/")
        graphs = [graph for graph in graphs if graph.namespace.strip("/") == wanted] or graphs[:1]
    if len(graphs) > 1:
        listed = ", ".join(f"{graph} (namespace {graph.namespace or '/'})" for graph in graphs)
        raise InputError(f"{len(graphs)} graphs run on this machine: {listed}; choose one with --domain or --namespace")
    found = graphs[0] if graphs else RunningGraph("", domain or 0)
    os.environ["ROS_DOMAIN_ID"] = str(found.domain)
    if found.discovery_range:
        os.environ.setdefault(_RANGE, found.discovery_range)
    ensure(isolate=False)
    return replace(found, namespace=namespace or found.namespace)


def _folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    base = base if os.path.isabs(base) and os.path.isdir(base) else tempfile.gettempdir()
    return Path(base, f"jepa_ros-{os.getuid()}")
