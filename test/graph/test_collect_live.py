"""`jepa_ros collect live` on the simulated arm: what is driven, what is recorded, and what interrupts it."""

import contextlib
import json
import signal
import sys
import time

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from jepa_msgs.msg import GateStatus, PlannerStatus
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import Trigger

from helpers.nodes import NodeProcess
from helpers.sim_arm import robot, scene, space
from jepa_ros.bags.reader import open_bag
from jepa_ros.collecting.plan_driver import choose_reset_position, restrict_workspace, sample_play_episode
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.resources import list_models
from jepa_ros.sim.cell import make_action_space

pytestmark = pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships")

BOX = (0.10, 0.28, -0.38, -0.20)  # m
CLI = "import sys; from jepa_ros.cli import app; app(prog_name='jepa_ros')"
AT_REST, IN_MOTION = 0.004, 0.02  # m/s, of the tool


class Cell:
    """The simulated arm, its gate and all that the gate needs; what they say; and the command, when it runs."""

    def __init__(self, client, start):
        self.client, self._start = client, start
        self.gate = client.collect(GateStatus, "gate_status")
        self.tool: list[tuple[float, np.ndarray]] = []  # (received, m), every joint state
        client.node.create_subscription(JointState, "joint_states", self._on_joints, 10)
        start("jepa_ros.nodes.simulator", {"width": 128, "height": 96})
        start("jepa_ros.nodes.camera", {"frozen_after": 0.0, "transport": "raw"})
        start("jepa_ros.nodes.world_model", {})
        # Others may need the machine as well: what is tested here is not how long the gate waits for pictures.
        start("jepa_ros.nodes.arm_gate", {"latent_timeout": 1.0, "latent_stamp_timeout": 1.5, "joint_timeout": 0.5})
        self.holds()

    def _on_joints(self, message):
        places = dict(zip(message.name, message.position, strict=True))
        self.tool.append((time.monotonic(), space().tool_coordinates(np.array([places[j] for j in robot().joints]))))

    @property
    def state(self):
        return self.gate[-1].state if self.gate else None

    def holds(self, state=GateStatus.HOLDING):
        def healthy():
            newest = self.gate[-1] if self.gate else None
            return newest and newest.state == state and newest.latent_age_ms < 200

        self.client.wait_for(healthy, "a gate that holds", 120.0)

    def speed(self, over=0.1):
        """m/s of the tool over the last so many seconds."""
        now, xy = self.tool[-1]
        then, before = next((t, p) for t, p in reversed(self.tool) if now - t >= over)
        return float(np.hypot(*(xy - before))) / (now - then)

    def moves(self):
        self.client.wait_for(lambda: self.state == GateStatus.TRACKING and self.speed() > IN_MOTION, "an arm in motion")

    def rests(self):
        self.client.wait_for(lambda: self.speed(0.3) < AT_REST, "an arm at rest", 10.0)

    def hears(self, process, text, timeout=60.0):
        """Wait until the command has said so, hearing what else is said meanwhile."""
        self.client.wait_for(lambda: text in process.output or process.process.poll() is not None, text, timeout)
        assert text in process.output, process.output

    def service(self, name):
        return self.client.call(Trigger, name, Trigger.Request())


@pytest.fixture(scope="module")
def cell(start, client):
    return Cell(client, start)


@pytest.fixture
def recorder(start, cell, tmp_path):
    process = start("jepa_ros.nodes.recorder", {"out": tmp_path / "bag"})
    process.says("active", 60.0)
    yield process
    process.end()


@pytest.fixture
def collect(tmp_path, cell):
    """collect(*options) -> the running command; its results are in tmp_path / "out"."""
    running = []

    def start(*options):
        command = [sys.executable, "-c", CLI, "collect", "live", "--out", str(tmp_path / "out"), *map(str, options)]
        running.append(NodeProcess(command, tmp_path / f"collect{len(running)}.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()
    if cell.state == GateStatus.LATCHED:
        cell.service("release")
    cell.holds()


def finished(cell, process, code=0, timeout=60.0):
    """Wait for the end of the command, hearing what is said meanwhile."""
    cell.client.wait_for(lambda: process.process.poll() is not None, "the command's end", timeout)
    assert process.wait() == code and "Traceback" not in process.output, process.output


def summary(tmp_path):
    assert (tmp_path / "out" / "report.html").stat().st_size > 5_000
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def outside(tool):
    """m by which tool positions (N, 2) are outside of the box."""
    low, high = np.array(BOX[::2]), np.array(BOX[1::2])
    return float(np.maximum(low - tool, tool - high).max())


def test_random_play_is_recorded_as_episodes_for_training(cell, recorder, collect, tmp_path):
    before = len(cell.tool)
    box = ",".join(map(str, BOX))
    process = collect("--episodes", 2, "--ticks", 25, "--seed", 4, "--box", box)
    finished(cell, process, timeout=90.0)
    recorder.signal(signal.SIGTERM)
    assert recorder.wait() == 0, recorder.output

    fields = (tuple(robot().joints), tuple(robot().gripper))
    episodes = list(read_episodes(tmp_path / "bag", space(), fields, 64))
    assert len(episodes) == 2
    for episode in episodes:
        n = len(episode.actions)
        assert n >= 25 and episode.frames.shape == (n + 1, 64, 64, 3) and episode.states.shape == (n + 1, 15)
        assert np.ptp(episode.frames.astype(int), axis=0).max() > 50, "nothing moves in the pictures"
        np.testing.assert_allclose(np.diff(episode.tool, axis=0), 0.02 * episode.actions, atol=0.008)
    driven = np.array([xy for _, xy in cell.tool[before:]])
    entered = np.argmax([outside(xy[None]) <= 0 for xy in driven])  # the arm begins at home, outside of the box
    assert outside(driven[entered:]) < 0.01

    told = summary(tmp_path)
    assert told["episodes"] == {"wanted": 2, "done": 2, "begun": 2}
    assert told["actions"] >= 50 and 0 < told["covered"] < 1 and told["plans"]["sent"] > 20
    assert told["plans"]["refused"] == told["plans"]["cut"] == told["stops"] == 0 and not told["pauses"]
    for number, actions in enumerate(executed_ticks(tmp_path / "bag")):
        assert np.abs(actions[:25] - wanted_ticks(number)).max() < 0.1


def executed_ticks(bag):
    """What the gate executed of each episode, (n, 2), from the first tick of its play on."""
    found = []
    with open_bag(bag, strict=True) as recording:
        wanted = [t for t in recording.topics if t.topic in ("/executed", "/episode")]
        for connection, message in recording.decoded(wanted):
            if connection.topic == "/episode":
                found.append([])
            elif found and (message.plan_id or found[-1]):
                found[-1].append(message.values)
    return [np.array(actions) for actions in found]


def wanted_ticks(number):
    """What the seed says, (25, 2)."""
    inside = make_action_space(restrict_workspace(robot(), BOX), scene().urdf)
    begin, knots = sample_play_episode(inside, choose_reset_position(inside, None), 25, 4, number)
    knots = np.vstack([np.zeros(2), inside.constrain(begin, np.zeros(2), knots)])
    return 0.5 * (knots[1:] + knots[:-1])


def test_collection_pauses_resumes_and_ends_an_episode_on_request(cell, recorder, collect, tmp_path):
    process = collect("--episodes", 1, "--ticks", 600)
    cell.hears(process, "episode 0: started")
    cell.moves()
    assert cell.service("collect/pause").success
    cell.rests()
    where = cell.tool[-1][1]
    cell.client.spin(1.0)
    assert np.hypot(*(cell.tool[-1][1] - where)) < 0.002, "moved while it was paused"
    assert cell.service("collect/resume").success
    cell.moves()
    assert cell.service("collect/end_episode").success
    finished(cell, process)
    told = summary(tmp_path)
    assert told["pauses"] == ["the service pause was called"] and told["per_episode"][0]["ended"] == "requested"
    assert told["stops"] == 0 and told["plans"]["refused"] == 0


def test_a_gate_stop_pauses_collection_and_ctrl_c_keeps_whole_episodes(cell, recorder, collect, tmp_path):
    process = collect("--episodes", 3, "--seconds", 60)
    cell.hears(process, "episode 0: started")
    cell.moves()
    assert cell.service("stop").success
    cell.holds(GateStatus.LATCHED)
    cell.rests()
    cell.hears(process, "paused: the service stop was called; it resumes after the service release was called")
    assert cell.service("release").success
    cell.moves()
    process.signal(signal.SIGINT)
    finished(cell, process, code=130)
    cell.rests()
    cell.holds()
    assert "gate rejected" not in process.output
    told = summary(tmp_path)
    assert told["episodes"] == {"wanted": 3, "done": 0, "begun": 1}
    assert told["stops"] == len(told["pauses"]) == 1
    recorder.signal(signal.SIGTERM)
    assert recorder.wait() == 0
    assert len(list(read_episodes(tmp_path / "bag", space(), (tuple(robot().joints), ()), 32))) == 1


def test_collection_ends_if_the_recorder_dies(cell, recorder, collect, tmp_path):
    process = collect("--ticks", 600)
    cell.hears(process, "episode 0: started")
    cell.moves()
    recorder.signal(signal.SIGKILL)
    finished(cell, process, code=1)
    cell.rests()
    assert "the recorder is gone" in process.output
    assert summary(tmp_path)["ended"] == "the recorder is gone"


class Pad:
    """Publishes a Joy 20 times a second for as long as it is asked to."""

    def __init__(self, cell):
        self._cell, self.publisher = cell, cell.client.node.create_publisher(Joy, "joy", 10)
        self.said = 0.0  # when the last one was

    def say(self, x=0.0, y=0.0, held=True, end=False):
        message = Joy(axes=[y, x], buttons=[0, int(end), 0, 0, int(held)])
        message.header.stamp = self._cell.client.node.get_clock().now().to_msg()
        self.publisher.publish(message)
        self.said = time.monotonic()

    @contextlib.contextmanager
    def held_at(self, **command):
        timer = self._cell.client.node.create_timer(0.05, lambda: self.say(**command))
        try:
            yield
        finally:
            self._cell.client.node.destroy_timer(timer)


def test_the_arm_follows_the_joystick_and_stops_when_it_is_silent(cell, recorder, collect, tmp_path):
    pad, spin = Pad(cell), cell.client.spin
    process = collect("--mode", "joy", "--reset", "0.15,-0.32")
    cell.hears(process, "episode 0: started")
    cell.client.wait_for(lambda: pad.publisher.get_subscription_count() > 0, "somebody who hears the pad")
    where = cell.tool[-1][1]
    with pad.held_at(x=1.0, y=0.5, held=False):
        spin(1.0)
    assert np.hypot(*(cell.tool[-1][1] - where)) < 0.002, "moved although the button was not held"
    with pad.held_at(x=0.6, y=0.3):
        cell.client.wait_for(lambda: np.hypot(*(cell.tool[-1][1] - where)) > 0.04, "an arm that follows the stick")
    silent = pad.said
    cell.rests()
    moved = [t for k, (t, xy) in enumerate(cell.tool[5:]) if np.hypot(*(xy - cell.tool[k][1])) > 5 * 0.02 * AT_REST]
    assert max(moved) - silent < 0.5 + 0.05
    way = cell.tool[-1][1] - where
    assert abs(np.arctan2(way[1], way[0]) - np.arctan2(0.3, 0.6)) < 0.1
    pad.say()
    pad.say(end=True)
    cell.hears(process, "episode 1: started")
    process.signal(signal.SIGINT)
    finished(cell, process)
    told = summary(tmp_path)
    assert told["episodes"]["wanted"] is None and told["per_episode"][0]["ended"] == "requested"


def test_twist_commands_in_another_frame_are_ignored(cell, recorder, collect, tmp_path):
    publisher = cell.client.node.create_publisher(TwistStamped, "hand", 10)
    process = collect("--mode", "twist", "--topic", "hand", "--episodes", 1, "--reset", "0.2,-0.3")
    cell.hears(process, "episode 0: started")

    def say(frame, x, y):
        message = TwistStamped()
        message.header.frame_id, message.twist.linear.x, message.twist.linear.y = frame, x, y
        publisher.publish(message)

    def moved(timeout, frame, **command):
        timer = cell.client.node.create_timer(0.05, lambda: say(frame, **command))
        where, end = cell.tool[-1][1], time.monotonic() + timeout
        while np.hypot(*(cell.tool[-1][1] - where)) < 0.02 and time.monotonic() < end:
            cell.client.spin(0.05)
        cell.client.node.destroy_timer(timer)
        return cell.tool[-1][1] - where

    cell.client.wait_for(lambda: publisher.get_subscription_count() > 0, "somebody who hears velocities")
    assert np.abs(moved(1.0, "tool", x=0.1, y=0.0)).max() < 0.002
    cell.hears(process, "hand: expected velocities in the frame world, found tool")
    assert np.abs(moved(1.0, "world", x=float("nan"), y=0.1)).max() < 0.002
    way = moved(20.0, robot().base_frame, x=0.0, y=-0.1)
    assert way[1] <= -0.02 and abs(way[0]) < 0.004
    assert cell.service("collect/end_episode").success
    finished(cell, process)


def test_a_missing_gate_or_recorder_is_named(cell, collect):
    process = collect("--namespace", "nobody")
    finished(cell, process, code=2)
    [line] = process.output.splitlines()
    assert "arm_gate (topic gate_status), a recorder (service recorder/episode)" in line and "found none" in line


def test_collection_is_refused_while_the_planner_has_a_goal(cell, recorder, collect):
    publisher = cell.client.node.create_publisher(PlannerStatus, "planner_status", 10)
    busy = PlannerStatus(state=PlannerStatus.PLANNING, text="plan 7 towards the goal")
    timer = cell.client.node.create_timer(0.1, lambda: publisher.publish(busy))
    try:
        process = collect()
        finished(cell, process, code=2)
    finally:
        cell.client.node.destroy_timer(timer)
        cell.client.node.destroy_publisher(publisher)
    [line] = process.output.splitlines()
    assert line.endswith("planner: expected no goal, found: plan 7 towards the goal")
