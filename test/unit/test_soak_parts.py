"""The parts of `jepa_ros soak` that need no graph: options, schedule of faults, record, observer and memory growth."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from jepa_msgs.msg import GateStatus

from helpers.gate_simulation import LIMITS, NAMES, START, minimum_jerk
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import trajectory_message, trajectory_of
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.path import Path as JointPath
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.soak.faults import NODES, catalogue, schedule
from jepa_ros.soak.memory import MemoryLog, ProcessSamples, estimate_growth, write_samples
from jepa_ros.soak.observer import Observer
from jepa_ros.soak.report import SoakRecord, summarise, write_report
from jepa_ros.soak.run import run_soak


@pytest.mark.parametrize(
    "options, words",
    [
        ({"minutes": 0}, "--minutes 0: must be more than 0"),
        ({"seed": -1}, "--seed -1: must be 0 or more"),
        ({"load": 99}, "--load 99: must be 0 to 64"),
        ({"faults": 0}, "--faults 0: must be at least 1"),
        ({"robot": "r2d2"}, "robot 'r2d2'"),
    ],
    ids=["minutes", "seed", "load", "faults", "robot"],
)
def test_invalid_input_is_refused_in_one_line_before_anything_is_written(tmp_path, options, words):
    with pytest.raises(InputError, match=words) as refused:
        run_soak(out=tmp_path / "out", **options)
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_every_fault_is_drawn_once_in_the_first_round_and_restarts_less_often():
    names = [str(fault) for fault in catalogue()]
    assert len(set(names)) == len(names)
    for node in NODES:
        assert {f"SIGKILL {node}", f"SIGTERM {node}", f"SIGSTOP {node}", f"absurd parameter {node}"} <= set(names)
    lasting = [str(fault) for fault in catalogue() if not fault.ends_process]
    drawn = [str(fault) for fault in itertools.islice(schedule(0), 2 * len(names) + 2 * len(lasting))]
    first, rest = drawn[: len(names)], drawn[len(names) :]
    assert Counter(first) == Counter(names) and first != names
    assert Counter(rest[: 2 * len(lasting)]) == Counter(lasting * 2)
    again = [str(fault) for fault in itertools.islice(schedule(0), len(drawn))]
    other = [str(fault) for fault in itertools.islice(schedule(1), len(drawn))]
    assert drawn == again != other


def test_controllers_are_disturbed_only_where_the_gate_can_read_what_they_report(monkeypatch):
    kinds = {"controller paused", "controller slowed", "controller switched off, then on"}
    monkeypatch.setattr("jepa_ros.soak.faults.JointTrajectoryControllerState", None)
    without = {fault.kind for fault in catalogue()}
    monkeypatch.setattr("jepa_ros.soak.faults.JointTrajectoryControllerState", object)
    assert {fault.kind for fault in catalogue()} - without == kinds


def make_row(**changes) -> dict:
    row = {"t": 10.0, "fault": "SIGKILL", "target": "camera", "stops": True, "restarts": True, "survived": True}
    return row | {"caught_ms": 200.0, "stop_ms": 400.0, "lasted_s": 0.5, "recovered_s": 6.0, "caught": True} | changes


def test_a_run_passes_only_without_failures_and_unexpected_exits(tmp_path):
    def summary(rows, exits=(), ended="") -> dict:
        record = SoakRecord(1.0, 0, "m", "r", 1, seconds=60.0, rows=list(rows), exits=list(exits), ended=ended)
        found = summarise(record)
        assert "SIGKILL camera" in write_report(record, found, tmp_path / "report.html").read_text()
        return found

    killed = {"t": 10.1, "node": "camera", "how": "was ended by SIGKILL"}
    assert summary([make_row()], [killed])["passed"]
    assert not summary([make_row(survived=False)])["passed"]
    assert not summary([make_row()], ended="interrupted")["passed"]
    late, other = killed | {"t": 40.0}, killed | {"node": "planner"}
    for exit_ in (late, other):
        found = summary([make_row()], [killed, exit_])
        assert not found["passed"] and found["unexpected_exits"] == [exit_]


def test_exits_and_tracebacks_are_read_from_the_output_of_nodes():
    record = SoakRecord(1.0, 0, "m", "r", 1, began=100.0)
    record.add_line("planner", "planner ended with code -3; restarting in 2 s", 103.0)
    record.add_line("planner", "Traceback (most recent call last):", 103.0)
    record.add_line("planner", "the goal ended with code words", 104.0)
    assert record.exits == [{"t": 3.0, "node": "planner", "how": "ended with code -3"}]
    assert record.tracebacks == {"planner": 1}


def status(state: int, at: float) -> tuple[GateStatus, dict]:
    return GateStatus(state=state, text="said"), {"source_timestamp": round((START + at) * 1e9)}


def test_a_delayed_gate_status_does_not_count_as_a_silent_gate(observer):
    seen = observer.seen
    seen._on_gate_status(*status(GateStatus.TRACKING, -0.01))
    reaction = seen.begin_fault(START)
    seen.update(START + 0.6)
    assert reaction.is_silent and reaction.text == "no gate_status"
    for at in (0.1, 0.2):
        seen._on_gate_status(*status(GateStatus.TRACKING, at))
    assert reaction.stopped_tracking is None and not reaction.is_silent
    seen._on_gate_status(*status(GateStatus.STOPPING, 0.25))
    assert reaction.stopped_tracking == pytest.approx(START + 0.25) and reaction.text == "said"
    reaction = seen.begin_fault(START + 1.0)
    seen.update(START + 1.6)
    seen._on_gate_status(*status(GateStatus.HOLDING, 3.0))
    assert (
        reaction.is_silent
        and reaction.stopped_tracking == pytest.approx(START + 0.25)
        and reaction.longest_gap == pytest.approx(2.0)
    )


class NoNode:
    """Stands in for the Observer's node: messages are passed to it directly."""

    def create_subscription(self, *args, **kwargs):
        return object()


def sent(offset: float, end: float = 0.4):
    """A window of the arm of the unit tests from its zero to 0.4 rad, shifted by ``offset`` rad, as a message."""
    way = minimum_jerk(np.zeros(len(NAMES)), np.full(len(NAMES), end), 1.5)
    shifted = JointTrajectory(NAMES, way.times, way.positions + offset, way.velocities, way.accelerations)
    return trajectory_message(shifted)


@pytest.fixture
def observer():
    """receive(message, at) returns the violations so far; ``receive.measured``: joint positions, rad."""
    robot = SimpleNamespace(joints=NAMES, controllers=[SimpleNamespace(command_topic="c", joints=NAMES)])
    seen = Observer(NoNode(), robot, [])
    seen._auditor = WindowAuditor(LIMITS)
    seen.subscribe_controller()

    def receive(message, at: float) -> list[str]:
        seen.positions = np.full(len(NAMES), receive.measured)
        received = round((START + at) * 1e9)
        seen._on_window(message, {"received_timestamp": received, "source_timestamp": received - 3_000_000})
        return [violation["text"] for violation in seen.violations]

    receive.measured, receive.seen = 0.0, seen
    return receive


def test_a_step_between_windows_is_a_violation_unless_the_arm_is_measured_there(observer):
    assert observer(sent(0.0), 0.0) == []
    assert len(observer(sent(-0.1), 0.7)) == 1  # in motion
    observer.measured = 0.6  # moved by hand, after rest
    assert len(observer(sent(0.6, -0.4), 10.0)) == 1
    assert len(observer(sent(0.1, -0.4), 20.0)) == 2  # from where the arm is not
    assert "step of" in observer.seen.violations[-1]["text"] and observer.seen.violations[-1]["late_ms"] == 3.0


def test_an_invalid_window_is_a_violation_recorded_with_all_digits(observer):
    message = sent(0.0)
    message.points[2].positions[1] = float("nan")
    assert "NaN" in observer(message, 0.0)[0]
    window = observer.seen.violations[0]["window"]
    assert window["positions"][2][1] == "nan" and len(window["ns"]) == len(message.points)
    assert observer(sent(0.0, 40.0), 0.1)[1:] and observer.seen.worst == float("inf")


def test_close_trajectory_points_cause_no_jerk_in_a_message():
    ends = np.zeros((2, 3, 7))
    ends[1, 0] = 1.0  # rad
    path = JointPath(np.array([0.0, 1.0]), ends)
    start, step = 0.30000000042, 0.00021247849  # s, as they came in a soak
    times = np.array([start, start + step, 0.5, 1.0])
    states = np.stack([path.at(t) for t in times])
    before = JointTrajectory(NAMES, times - start, *states.transpose(1, 0, 2))
    after = trajectory_of(trajectory_message(before))
    assert LIMITS.compute_usage(JointPath(times, states)).jerk == pytest.approx(0.06, abs=0.02)
    states = np.stack((after.positions, after.velocities, after.accelerations), axis=1)
    assert LIMITS.compute_usage(JointPath(after.times, states)).jerk == pytest.approx(0.06, abs=0.02)
    assert (
        after.times[1] == pytest.approx(0.000212478, rel=1e-9)
        and np.abs(after.positions - before.positions).max() < 1e-8
    )


def drifting(rng, mb_per_h: float, level: float, hours: float, correlation: float = 0.9) -> ProcessSamples:
    """A process sampled every 5 s, with correlated noise."""
    t = np.arange(0.0, 3600.0 * hours, 5.0)
    noise = np.zeros(len(t))
    for i in range(1, len(t)):
        noise[i] = correlation * noise[i - 1] + rng.normal(0.0, 0.1)
    start = 40.0 * np.exp(-t / 30.0)  # memory that loading takes and releases
    return ProcessSamples(1, 0.0, t.tolist(), (level + mb_per_h * t / 3600.0 + noise + start).tolist())


def test_a_memory_leak_is_detected_across_restarts():
    rng = np.random.default_rng(0)
    steady = estimate_growth([drifting(rng, 0.0, level, 0.3) for level in (300.0, 320.0, 280.0)], 300.0)
    assert abs(steady["mb_per_h"]) < 2.0 and steady["mb_per_h"] < steady["upper95_mb_per_h"] < 6.0
    assert steady["lives_used"] == 3 and steady["hours"] > 0.5
    leak = estimate_growth([drifting(rng, 30.0, level, 0.3) for level in (300.0, 320.0, 280.0)], 300.0)
    assert 26.0 < leak["mb_per_h"] < 34.0 and leak["mb_per_h"] < leak["upper95_mb_per_h"] < 40.0


def test_the_last_sample_of_an_ending_process_is_ignored():
    rng = np.random.default_rng(3)
    lives = [drifting(rng, 0.0, level, 0.3) for level in (300.0, 320.0, 280.0)]
    whole = estimate_growth(lives, 300.0)
    for life in lives[:2]:
        life.times.append(life.times[-1] + 5.0)
        life.own.append(150.0)
    assert estimate_growth(lives, 300.0) | {"hours": whole["hours"]} == pytest.approx(whole, abs=1.0)


def test_the_upper_bound_on_memory_growth_has_95_percent_coverage():
    rng = np.random.default_rng(1)
    above = [estimate_growth([drifting(rng, 5.0, 300.0, 0.5)], 300.0)["upper95_mb_per_h"] > 5.0 for _ in range(200)]
    assert 0.88 < np.mean(above) < 0.995


def test_processes_with_few_samples_are_not_used():
    rng = np.random.default_rng(2)
    found = estimate_growth([drifting(rng, 0.0, 300.0, 0.05)], 300.0)
    assert found["mb_per_h"] is None and found["lives"] == 1 and found["lives_used"] == 0


def test_a_restarted_process_is_a_new_series_of_samples(tmp_path):
    log = MemoryLog()
    log.sample({"node": os.getpid()}, 1.0)
    log.sample({"node": os.getpid()}, 6.0)
    log.sample({"node": os.getppid()}, 11.0)
    log.sample({"node": 2**22 + 1}, 16.0)  # no such process
    first, second = log.processes["node"]
    assert first.times == [0.0, 5.0] and second.times == [0.0] and first.resident[0] > first.own[0] > 5.0
    write_samples(log.processes, 1.0, tmp_path / "memory.csv")
    [head, *rows] = (tmp_path / "memory.csv").read_text().split()
    assert head == "node,pid,s,own_mb,resident_mb" and [row.split(",")[2] for row in rows] == ["0.0", "5.0", "10.0"]
