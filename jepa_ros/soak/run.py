"""``jepa_ros soak``: run the simulated graph for a long time, under load, with one fault after the other.

The verdict is on what the controller receives (robot/gate/window_auditor.py), not on what the gate reports.
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
from jepa_ros.bringup.nodes import RESPAWN_DELAY, NodeSpec, SimArguments, check_inputs, node_list
from jepa_ros.bringup.process_group import Command, ProcessGroup
from jepa_ros.bringup.up import on_signals
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import GraphEnded, NodeLog, Stopped
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.resources import config_path, resolve_model
from jepa_ros.sim.tasks import make_goal_set
from jepa_ros.soak.memory import write_samples
from jepa_ros.soak.report import SoakRecord, summarise, write_report

GOAL_IMAGES = 30
FROZEN_AFTER = 0.5  # s of equal images; the relay adds noise, so that only a frozen camera repeats an image
LOAD_NICE = 10  # nice value of the processes that load the machine
MAX_MINUTES = 7 * 24 * 60


def run_soak(
    minutes: float = 60.0,
    seed: int = 0,
    out: str | os.PathLike = "runs/soak",
    model: str = "openarm_reach",
    robot: str = "openarm",
    load: int = 1,
    faults: int | None = None,
) -> int:
    """Inject faults for ``minutes`` once the nodes are up; write summary.json, report.html, memory.csv and nodes.log.

    load: busy processes beside the graph. faults: end after so many, if that is earlier. Returns 0 if there were no
    violations and the arm recovered from every fault, else 1; 130 if interrupted, with all results up to then written.
    Raises InputError.
    """
    if not 0 < minutes <= MAX_MINUTES:
        raise InputError(f"--minutes {minutes:g}: must be more than 0 and at most {MAX_MINUTES} (a week)")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more")
    if not 0 <= load <= 64:
        raise InputError(f"--load {load}: must be 0 to 64 processes")
    if faults is not None and faults < 1:
        raise InputError(f"--faults {faults}: must be at least 1")
    check_inputs(SimArguments(robot=robot, model=model))
    out = prepare_out(out)
    out.mkdir(parents=True, exist_ok=True)
    specs = _node_specs(robot, model, out)
    record = SoakRecord(minutes, seed, resolve_model(model).name, robot, load, faults)
    log = NodeLog(out / "nodes.log")
    code, stop = 0, threading.Event()
    try:
        with ProgressDisplay() as display, on_signals(stop.set):
            _run_graph(record, specs, display, log, stop)
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
        with after_summary(out / "summary.json"):
            write_samples(record.processes, record.began, out / "memory.csv")
            write_report(record, summary, out / "report.html")
        _print_result(summary, out)
    return code or (0 if summary["passed"] else 1)


def _run_graph(
    record: SoakRecord, specs: list[NodeSpec], display: ProgressDisplay, log: NodeLog, stop: threading.Event
) -> None:
    """Start the graph and run a session in it. Raises GraphEnded or Stopped if it ends early."""
    goal_set = make_goal_set(record.robot, GOAL_IMAGES, record.seed)
    environment = process_environment()
    os.environ.update(environment)  # before rclpy is imported
    from jepa_ros.soak.session import SoakSession

    def on_line(name: str, line: str) -> None:
        log.write(name, line)
        record.add_line(name, line, time.time())

    with ProcessGroup(_commands(specs, record.load), environment, on_line, True, RESPAWN_DELAY) as group:
        SoakSession(record, goal_set, group, [spec.name for spec in specs], display, log, stop).run()


def _node_specs(robot: str, model: str, out: Path) -> list[NodeSpec]:
    """Return the simulated bring-up with a relay between image and camera, and a camera that detects frozen images."""
    parameters = yaml.safe_load(config_path("sim.yaml").read_text())
    parameters.setdefault("/**/camera", {"ros__parameters": {}})["ros__parameters"]["frozen_after"] = FROZEN_AFTER
    path = out / "parameters.yaml"
    path.write_text(yaml.safe_dump(parameters))
    specs = node_list("sim", SimArguments(robot=robot, model=model, params_file=path))
    remappings = (("image", "image_seen"),)
    return [dataclasses.replace(spec, remappings=remappings) if spec.name == "camera" else spec for spec in specs]


def _commands(specs: list[NodeSpec], load: int) -> list[Command]:
    commands = [Command(spec.name, spec.command(), spec.nice) for spec in specs]
    commands.append(Command("relay", [sys.executable, "-m", "jepa_ros.soak.image_relay"], 0))
    busy_loop = [sys.executable, "-c", "while True: pass"]
    return commands + [Command(f"load{i}", busy_loop, LOAD_NICE) for i in range(load)]


def _print_result(summary: dict, out: Path) -> None:
    stops = summary["stop_ms"]
    lines = [
        ("faults survived", f"{summary['survived']} of {summary['faults']}"),
        ("limit violations", f"{summary['violations']} in {summary['windows']} windows"),
        ("goals reached", summary["goals"]["reached"]),
    ]
    if stops["p50"] is not None:
        lines.append(("fault to stop", f"median {stops['p50']:.0f} ms, max {stops['max']:.0f} ms"))
    if summary["ended_early"]:
        lines.append(("ended early", summary["ended_early"]))
    files = [out / name for name in ("summary.json", "report.html", "memory.csv", "nodes.log")]
    print_result(f"soak: {'passed' if summary['passed'] else 'not passed'}", lines, files)
