"""``jepa_ros soak``: the demo's graph for a long time, under load, with one fault after the other.

What is judged is what the controller receives (robot/gate/window_auditor.py), not what the gate says of itself.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from pathlib import Path

import yaml

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import RESPAWN_DELAY, Arguments, NodeSpec, check_inputs, node_list
from jepa_ros.bringup.process_group import Command, ProcessGroup
from jepa_ros.bringup.up import on_signals
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.waiting import GraphEnded, NodeLog, Stopped
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.resources import config_path, resolve_model
from jepa_ros.sim.tasks.reach import make_goal_set
from jepa_ros.soak.memory import write_samples
from jepa_ros.soak.report import SoakRecord, summarise, write_report
from jepa_ros.soak.session import Soak

GOALS = 30  # different goal images
# s for which a camera may show the same picture: the relay adds noise, so unlike the simulator's own it never does.
FROZEN_AFTER = 0.5
NICE = 10  # of what burns processor time beside the graph


def run_soak(
    minutes: float = 60.0,
    seed: int = 0,
    out: str | os.PathLike = "runs/soak",
    model: str = "openarm_reach",
    robot: str = "openarm",
    load: int = 1,
    faults: int | None = None,
) -> int:
    """Soak for ``minutes`` after the nodes are up; writes summary.json, report.html, memory.csv (every sample) and
    nodes.log to ``out``.

    load: busy processes beside the graph. faults: end after so many, where that is sooner. Returns 0 where nothing was
    violated and the arm came back after every fault, else 1; 130 where it was interrupted, with everything written that
    there is. Raises InputError.
    """
    if not 0 < minutes <= 7 * 24 * 60:
        raise InputError(f"minutes: expected more than 0 and at most a week, found {minutes:g}")
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, found {seed}")
    if not 0 <= load <= 64:
        raise InputError(f"load: expected 0 to 64 processes, found {load}")
    if faults is not None and faults < 1:
        raise InputError(f"faults: expected at least 1, found {faults}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out {out}: expected a directory, found a file")
    check_inputs(Arguments(robot=robot, model=model))
    out.mkdir(parents=True, exist_ok=True)
    specs = _specs(robot, model, out)
    record = SoakRecord(minutes, seed, resolve_model(model).name, robot, load, faults)
    log = NodeLog(out / "nodes.log")
    code, stop = 0, threading.Event()
    try:
        with ProgressDisplay() as work, on_signals(stop.set):
            _soak(record, specs, work, log, stop)
    except Stopped:
        record.ended, code = "interrupted", 130
    except GraphEnded as reason:
        record.ended, code = str(reason), 1
    except Exception as error:
        record.ended = f"{type(error).__name__}: {error}"
        raise
    finally:
        log.close()
        summary = summarise(record)
        write_summary(out / "summary.json", summary)
        write_samples(record.lives, record.began, out / "memory.csv")
        write_report(record, summary, out / "report.html")
    sys.stderr.write(f"{_result(summary)}\n{out / 'report.html'}\n")
    return code or (0 if summary["passed"] else 1)


def _soak(
    record: SoakRecord, specs: list[NodeSpec], work: ProgressDisplay, log: NodeLog, stop: threading.Event
) -> None:
    """Start the graph and keep at it. Raises GraphEnded or Stopped where it ends early."""
    plan = make_goal_set(record.robot, GOALS, record.seed)
    environment = process_environment()
    os.environ.update(environment)  # before rclpy is imported

    def hear(name: str, line: str) -> None:
        log.write(name, line)
        record.hear(name, line, time.time())

    with ProcessGroup(_commands(specs, record.load), environment, hear, True, RESPAWN_DELAY) as group:
        Soak(record, plan, group, [spec.name for spec in specs], work, log, stop).run()


def _specs(robot: str, model: str, out: Path) -> list[NodeSpec]:
    """The simulated bring-up with a relay between image and camera, and a camera that minds frozen images."""
    parameters = yaml.safe_load(config_path("sim.yaml").read_text())
    parameters.setdefault("/**/camera", {"ros__parameters": {}})["ros__parameters"]["frozen_after"] = FROZEN_AFTER
    path = out / "parameters.yaml"
    path.write_text(yaml.safe_dump(parameters))
    specs = node_list("sim", Arguments(robot=robot, model=model, params_file=path))
    seen = (("image", "image_seen"),)
    return [dataclasses.replace(spec, remappings=seen) if spec.name == "camera" else spec for spec in specs]


def _commands(specs: list[NodeSpec], load: int) -> list[Command]:
    commands = [Command(spec.name, spec.command(), spec.nice) for spec in specs]
    commands.append(Command("relay", [sys.executable, "-m", "jepa_ros.soak.image_relay"], 0))
    burn = [sys.executable, "-c", "while True: pass"]
    return commands + [Command(f"load{i}", burn, NICE) for i in range(load)]


def _result(summary: dict) -> str:
    stops = summary["stop_ms"]
    times = "" if stops["p50"] is None else f", stops p50 {stops['p50']:.0f} ms, max {stops['max']:.0f} ms"
    return (
        f"{summary['survived']} of {summary['faults']} faults survived, {summary['violations']} violations in "
        f"{summary['windows']} windows, {summary['goals']['reached']} goals reached{times}"
    )
