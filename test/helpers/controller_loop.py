"""A gate and a controller of ros2_control, with the messages between them, in simulated time."""

import heapq
import itertools
import math

import numpy as np

from helpers.controller_peers import PositionPeer, TrajectoryPeer
from helpers.gate_simulation import LIMITS, NAMES, ZERO, minimum_jerk
from jepa_ros.robot.gate.controller_cycles import ControllerCycles, SetpointSchedule
from jepa_ros.robot.gate.controller_watch import ControllerReport
from jepa_ros.robot.gate.gate import Gate
from jepa_ros.robot.gate.types import GateSettings, GateState
from jepa_ros.robot.motion.trajectory_points import Points

BEGIN = 1_700_000_000.0  # s
TICK = 0.005  # s
PEERS = {"joint_trajectory": TrajectoryPeer, "forward_position": PositionPeer}
CONTROLLER = "arm_controller"


class ControllerLoop:
    """Runs a gate, as its node does, against one controller. Times in s since BEGIN.

    kind: command interface. report_every: cycles between two reports of the controller's state; 0: none, as where
    control_msgs is missing. activity: the controller manager tells which controllers are active. gate_sleeps: (from,
    to), while the gate's process is suspended. skew: s that the gate's clock is ahead of the controllers'; with one,
    windows are stamped in the controllers' clock, as with command_stamps: zero. to_controllers, to_gate: largest delay
    of a message.
    """

    def __init__(self, kind="joint_trajectory", report_every=2, activity=True, q=ZERO, sag=0.0, skew=0.0, **settings):
        self.kind, self.settings = kind, GateSettings(**{"resume_after": 0.1, **settings})
        self.peer = PEERS[kind](LIMITS, q)
        self.peer.sag = np.full(7, sag)
        self.gate = Gate(LIMITS, self.settings, streaming=kind == "forward_position")
        self.report_every = report_every if kind == "joint_trajectory" else 0
        self.activity, self.skew = activity, skew
        self.gate_sleeps = (math.inf, math.inf)
        self.to_controllers = self.to_gate = 0.002
        self.now, self.output, self.statuses, self.sent = 0.0, None, [], 0
        self._random = np.random.default_rng(0)
        self._cycles = ControllerCycles()
        self._schedule = SetpointSchedule(self._cycles, 1.0 / TICK)
        self._queue, self._order, self._cycle = [], itertools.count(), 0
        self._asleep = []  # messages that wait for the suspended gate
        self._at(0.0013, self._tick)
        self._at(0.0, self._control)
        if self.gate.setpoints:
            self._at(0.3, self._prepare_setpoint)
        if activity:
            self.switch(True)

    # -- what a test does ----------------------------------------------------------------------------------------------

    def run(self, seconds):
        """Let time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
        self.now = end
        return self

    def until(self, state, within=3.0):
        end = self.now + within
        while self.now < end:
            if self.run(TICK).state == state:
                return self
        raise AssertionError(f"not {state!r} within {within} s, but {self.output.status}")

    def follow(self, goal, duration=1.2, start=None, plan_id=1):
        """Submit a plan from where the arm is measured, as the planner does, or from `start`; return the verdict."""
        start = self.peer.measured if start is None else start
        now = self.clock
        return self.gate.submit_plan(minimum_jerk(start, goal, duration), now, now - 0.1, now + 3.0, plan_id, now)

    def ready(self):
        self.run(0.8)
        assert self.state == GateState.HOLDING, self.text
        self.peer.setpoints.clear()
        return self

    def moving(self, goal, duration=1.2, after=0.45):
        """In the middle of a motion."""
        assert self.ready().follow(goal, duration)
        self.run(after)
        assert self.state == GateState.TRACKING
        return self

    def switch(self, active):
        """The controller manager activates or deactivates the controller, and tells so."""
        self.peer.active = active
        if self.activity:
            inactive = {} if active else {CONTROLLER: "inactive"}
            self._to_gate(self.gate.update_activity, inactive)

    @property
    def clock(self):
        """The gate's clock, s."""
        return BEGIN + self.now + self.skew

    @property
    def state(self):
        return self.output.status.state

    @property
    def code(self):
        return self.output.status.code

    @property
    def text(self):
        return self.output.status.text

    def first(self, code, since):
        """s from `since` until the gate's status has a code."""
        return next(t for t, status in self.statuses if t >= since and status.code == code) - since

    @property
    def step(self):
        """Largest step of a set-point in a cycle, over the velocity limit."""
        return self.peer.largest_step()

    @property
    def acceleration(self):
        return self.peer.largest_acceleration()

    # -- what happens by itself ----------------------------------------------------------------------------------------

    def _at(self, when, action, *arguments):
        heapq.heappush(self._queue, (when, next(self._order), action, arguments))

    def _sleeps(self):
        return self.gate_sleeps[0] <= self.now < self.gate_sleeps[1]

    def _control(self):
        """One cycle of the controller manager, and what it publishes."""
        peer, self._cycle = self.peer, self._cycle + 1
        self._at(self._cycle * peer.period, self._control)
        measured = peer.update(self.now)
        if peer.stalls(self.now):
            return
        stamp = BEGIN + self.now
        self._to_gate(self._receive_joints, measured.copy(), stamp)
        if self.report_every and peer.active and self._cycle % self.report_every == 0 and peer.arm.output is not None:
            report = ControllerReport(CONTROLLER, NAMES, peer.arm.output.copy(), peer.speed, stamp)
            self._to_gate(self._receive_report, report)

    def _receive_joints(self, q, stamp):
        self._cycles.observe(stamp, self.clock)
        self.gate.update_joint_states(NAMES, q, [math.nan] * 7, stamp, self.clock)

    def _receive_report(self, report):
        self.gate.update_controller(report, self.clock)

    def _to_gate(self, action, *arguments):
        if action == self.gate.update_activity:
            self._at(self.now + self._delay(self.to_gate), self._deliver, self._receive_activity, arguments)
        else:
            self._at(self.now + self._delay(self.to_gate), self._deliver, action, arguments)

    def _receive_activity(self, inactive):
        self.gate.update_activity(inactive, self.clock)

    def _deliver(self, action, arguments):
        if self._sleeps():
            self._asleep.append((action, arguments))
        else:
            action(*arguments)

    def _delay(self, largest):
        return self._random.uniform(0.1, 1.0) * largest

    def _tick(self):
        if self._sleeps():
            self._at(self.gate_sleeps[1], self._tick)
            return
        for action, arguments in self._asleep:  # a node takes its messages before it ticks
            action(*arguments)
        self._asleep.clear()
        now = self.clock
        self.gate.record_latent(now - 0.08, now)
        self.gate.record_planner_alive(now)
        self.output = out = self.gate.tick(now)
        self.statuses.append((self.now, out.status))
        if out.window is not None and not self.gate.setpoints:
            trajectory = out.window.trajectory
            ahead = self._cycles.offset if self.skew else 0.0
            if ahead is not None:
                self._send(Points.from_trajectory(trajectory, out.window.start - BEGIN - ahead))
        self._at(self.now + TICK + self._random.uniform(-0.0005, 0.0005), self._tick)

    def _send(self, command):
        self.sent += 1
        self._at(self.now + self._delay(self.to_controllers), lambda: self.peer.receive(command, self.now))

    def _prepare_setpoint(self):
        slot = self._schedule.next(self.clock)
        woke = max(slot.send - BEGIN - self.skew, self.now + 1e-6) + self._random.uniform(0.0, 0.2) * slot.period
        if self.gate_sleeps[0] <= woke < self.gate_sleeps[1]:
            woke = self.gate_sleeps[1] + 1e-6
        self._at(woke, self._send_setpoint, slot)

    def _send_setpoint(self, slot):
        if self.clock <= slot.cycle - 0.1 * slot.period:
            setpoint = self.gate.next_setpoint(slot.cycle, slot.period)
            if setpoint is not None:
                self._send(setpoint.copy())
        self._prepare_setpoint()
