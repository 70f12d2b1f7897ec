"""The whole graph as real processes, listened to where a controller listens, and faults put into it.

Times in s of the system's clock unless said otherwise; joints in the robot's order, rad and rad/s.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GateStatus, GoalTerm, SubGoal
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from helpers.graph_listener import ROBOT, Listener, Relay
from helpers.nodes import NodeProcess
from jepa_ros.graph_clients.goal_client import GoalClient, Request
from jepa_ros.robot.gate.types import GateSettings
from jepa_ros.robot.gate.window_auditor import WindowAuditor

NODES = ("simulator", "camera", "world_model", "planner", "arm_gate")
SETTINGS = GateSettings()
PLACES = ((0.10, -0.38), (0.27, -0.24))  # m, well apart and well within the workspace
IN_MOTION, AT_REST = 0.15, 0.02  # rad/s, of the fastest joint
HELD = 0.01  # rad that an arm which holds its position may stray
SOONER = 0.002  # s between a window and the status that tells of it


class Stopped(NamedTuple):
    """When the fault was put in, when the first stopping window was sent, and when the arm was at rest; s."""

    fault: float
    caught: float
    rest: float


class Graph(Listener):
    """All nodes of the simulated bring-up, and what they say.

    parameters, remaps: by node, beside those that every test needs. The camera hears the simulator's pictures through
    `images`, so that a test can lose, hold back or spoil them. model: of all that need one. pictures: what the relay
    does while nothing is wrong (see Relay.change). nodes: names; each other camera is called something_camera. before:
    called with the nodes started, before the graph is waited for.
    """

    def __init__(
        self,
        start,
        client,
        parameters=None,
        remaps=None,
        model="openarm_reach",
        nodes=NODES,
        pictures=None,
        before=lambda graph: None,
    ):
        self._start = start
        common = {"simulator": {"width": 128, "height": 96}, "camera": {"frozen_after": 0.0, "transport": "raw"}}
        common |= {"world_model": {"model": model}, "planner": {"model": model}}
        parameters, remaps = parameters or {}, remaps or {}
        self.parameters = {n: common.get(n, {}) | parameters.get(n, {}) for n in nodes}
        self._remaps = {"camera": {"image": "image_seen"}} | remaps
        super().__init__(client)
        self.images = Relay(client, Image, "image", "image_seen")
        self.pictures = self.images.change = pictures
        self.request: Request | None = None
        self.processes: dict[str, NodeProcess] = {}
        for node in nodes:
            self.launch(node)
        before(self)
        self.limits = self._read_limits()
        self.listen_as_controller()
        self.goals = GoalClient(client.node)
        client.wait_for(self.goals.is_ready, "the planner's action", 120.0)
        client.wait_for(lambda: self.gate_state == GateStatus.HOLDING and self.latents, "a gate that holds", 120.0)

    # -- processes -----------------------------------------------------------------------------------------------------

    def launch(self, node: str) -> NodeProcess:
        """Start a node, for the first time or again."""
        module = "camera" if node.endswith("camera") else node
        started = self._start(f"jepa_ros.nodes.{module}", self.parameters[node], self._remaps.get(node, {}))
        self.processes[node] = started
        return self.processes[node]

    def kill(self, node: str) -> None:
        """End a node at once, without a chance to say so."""
        self.processes[node].signal(signal.SIGKILL)
        self.processes[node].wait()

    def freeze(self, node: str) -> None:
        """Stop a node's process where it is."""
        self.processes[node].signal(signal.SIGSTOP)

    def thaw(self, node: str) -> None:
        """Let a stopped process go on."""
        self.processes[node].signal(signal.SIGCONT)

    @contextlib.contextmanager
    def starved(self, node: str, share: float, period: float = 0.1) -> Iterator[None]:
        """Meanwhile a node runs for no more than this share of the time, in slices: a machine with too much to do."""
        ended, process = threading.Event(), self.processes[node]

        def pinch() -> None:
            while not ended.wait(share * period):
                process.signal(signal.SIGSTOP)
                ended.wait((1.0 - share) * period)
                process.signal(signal.SIGCONT)

        thread = threading.Thread(target=pinch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # -- motion --------------------------------------------------------------------------------------------------------

    def ask(self, goal: ReachGoal.Goal, timeout: float = 60.0) -> Request:
        goal.timeout = goal.timeout or timeout
        self.request = self.goals.send(goal)
        return self.request

    def moving(self, timeout: float = 30.0) -> None:
        """The arm is on its way to and fro between two places, and stays so for a minute unless something stops it."""
        if self.request is None or self.request.outcome is not None:
            here = self._tool_x()
            first = max(range(2), key=lambda k: abs(PLACES[k][0] - here))
            via = [SubGoal(terms=[place(PLACES[(first + k) % 2])]) for k in range(60)]
            self.ask(ReachGoal.Goal(terms=[place(PLACES[first])], via=via))
        self.in_motion("an arm in motion", timeout)

    def in_motion(self, what: str = "motion by itself", timeout: float = 30.0) -> None:
        """Wait until a plan is followed and the arm is under way."""
        self.client.wait_for(lambda: self.gate_state == GateStatus.TRACKING and self.speed > IN_MOTION, what, timeout)

    def another_planner(self) -> None:
        """In place of one that was killed; goals go to it."""
        self.request = None
        self.launch("planner").says("active", 60.0)
        while self.request is None or self.request.outcome is None:
            self.ask(pose_goal(PLACES[0], timeout=0.2))  # lost, or its end is, where discovery has not found it yet
            self.client.spin(2.0)
        self.rest()

    def _tool_x(self) -> float:
        from helpers.sim_arm import space

        self.client.wait_for(lambda: self.samples, "joint states")
        return float(space().tool_coordinates(self.position)[0])

    @property
    def rests(self) -> bool:
        """By what is measured and by what was sent."""
        if not self.samples or time.time() - self.samples[-1].received > 0.2:
            return False
        return self.speed < AT_REST and self.auditor.is_at_rest(self.clock(time.time()))

    def stops(self, fault: float, timeout: float = 10.0, state: int = GateStatus.HOLDING) -> Stopped:
        """Wait until the arm rests and the gate is in `state`, and see that the position is held for half a second."""
        self.client.wait_for(lambda: self.rests and self.gate_state == state, "an arm at rest", timeout)
        self._holds(state)
        first = next(((t, sent) for t, sent, m in self.gate if t >= fault and m.state != GateStatus.TRACKING), None)
        assert first is not None, "the gate never ceased to follow"
        sent = [when for _, when in self.windows if fault <= when <= first[1] + SOONER]
        moved = [s.received for s in self.samples if s.received >= fault and np.abs(s.qd).max() > AT_REST]
        return Stopped(fault, sent[-1] if sent else first[0], max(moved, default=fault))

    def _holds(self, state: int) -> None:
        before = self.position
        self.client.spin(0.5)
        self.client.wait_for(lambda: self.rests, "a fresh joint state at rest", 3.0)  # late on a busy machine
        strayed = np.abs(self.position - before).max()
        assert strayed < HELD, f"not held: {strayed:.3f} rad"
        assert self.gate_state == state, self.gate[-1][2].text

    def caught_ms(self, stopped: Stopped, timeout: float) -> float:
        """ms from the time-out of latents, counted from the arrival of the last one, to the first stopping window."""
        last = max(t for t, _ in self.latents if t < stopped.caught)
        return 1e3 * (stopped.caught - last - timeout)

    def resumes(self, healed: float, timeout: float = 30.0) -> float:
        """The goal that is still on is followed again, by itself, after inputs were healthy for the configured time;
        when that began."""
        self.in_motion(timeout=timeout)
        begun = next(t for t, _, m in self.gate if t >= healed and m.state == GateStatus.TRACKING)
        fresh = [t for t, _ in self.latents if healed <= t <= begun]
        assert len(fresh) >= 3, "resumed on too few fresh frames"
        assert begun - fresh[0] >= SETTINGS.resume_after - 0.02, "resumed before inputs were healthy for long enough"
        return begun

    # -- rows ----------------------------------------------------------------------------------------------------------

    def between_rows(self, measured: dict) -> Iterator[Graph]:
        """What a fixture of a test yields: the graph at rest and healthy; after the test it must be so again."""
        self.clear()
        self.client.wait_for(lambda: self.gate and self.samples, "the gate's status", 30.0)
        self.auditor, self.measured = WindowAuditor(self.limits), measured
        yield self
        self.heal()
        for node, process in self.processes.items():
            if process.process.poll() is None:
                process.signal(signal.SIGCONT)
            else:  # of a test that failed: the next ones can do without that
                self.launch(node)
        self.rest()
        assert not self.auditor.violations, self.auditor.violations[:5]

    def heal(self) -> float:
        """Pictures are good again; when that was."""
        self.images.change = self.pictures
        return time.time()

    def rest(self) -> None:
        """No goal, inputs healthy, the gate holding."""
        request = self.request
        if request is not None and request.outcome is None:
            self.client.wait_for(lambda: request.accepted or request.outcome, "the goal's acceptance")
            request.cancel()
            self.client.wait_for(lambda: request.outcome, "the goal's end")
        self.request = None
        if self.gate_state == GateStatus.LATCHED:
            self.client.call(Trigger, "release", Trigger.Request())

        def healthy() -> bool:
            status = self.gate[-1][2]
            return status.state == GateStatus.HOLDING and status.latent_age_ms < 200 and status.joint_age_ms < 150

        self.client.wait_for(lambda: self.gate and healthy() and self.rests, "a gate that holds, its inputs healthy")


def place(xy, kind=GoalTerm.POSE, **fields) -> GoalTerm:
    """A term of a goal: the tool at xy, m in the base frame."""
    term = GoalTerm(kind=kind, **fields)
    term.pose.header.frame_id = ROBOT.base_frame
    term.pose.pose.position.x, term.pose.pose.position.y = map(float, xy)
    term.pose.pose.position.z = ROBOT.action_space.height
    return term


def pose_goal(xy, **fields) -> ReachGoal.Goal:
    """The tool at xy, m in the base frame."""
    return ReachGoal.Goal(terms=[place(xy)], **fields)
