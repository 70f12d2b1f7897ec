"""A gate's bench whose controller has a manager, and which judges every command by the step that it would cause."""

import numpy as np
from lifecycle_msgs.msg import State

from helpers.gate_peers import GOAL, START, Bench, minimum_jerk
from jepa_ros.nodes.common.convert import points_of, to_seconds
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.robot.motion.path import Path

try:
    from controller_manager_msgs.msg import ControllerManagerActivity, NamedLifecycleState
except ImportError:
    ControllerManagerActivity = None  # `make setup-robot` or a distribution has it

LARGEST_STEP = 1.0 + 1e-6  # of a set-point in a cycle, over the velocity limit
LEAVING, ARRIVING = 0.7, 0.5  # s, duration of a motion in which a fault comes, and of one after it
STATES = {True: State(id=State.PRIMARY_STATE_ACTIVE, label="active")}
STATES[False] = State(id=State.PRIMARY_STATE_INACTIVE, label="inactive")


class ControllerBench(Bench):
    """Commands are judged by when they were received, not by when this process looks at them, as it may be late.

    steps: (time, step) of each command that an active controller received: the step of its set-point in the next cycle,
    over the velocity limit. sent: (time, set-point) of all set-points, none missed. manager: publishes activity.
    """

    def __init__(self, *args, behind=0.0, **options):
        self.steps, self.sent, self.manager, self._held = [], [], None, None
        super().__init__(*args, **options)
        self.behind = behind
        self._off = []  # (from, to), while the controller was not active

    def listen(self):
        super().listen()
        if not hasattr(self.peer, "arm"):
            self.client.node.create_subscription(self.peer.message, self.command_topic, self.on_sent, 1000)

    def on_command(self, message, info):
        came, peer = info["received_timestamp"] * 1e-9 - self.behind, self.peer
        if hasattr(peer, "arm") and peer.active and not peer.lost and not peer.stalls(came):
            peer.update(came)
            self.steps.append((came, self._entrance(points_of(message), came)))
        super().on_command(message, info)

    def _entrance(self, points, came):
        """Step of the set-point when the controller takes a window over."""
        peer, trajectory = self.peer, points.to_trajectory()
        last = peer.setpoints[-1][0] if peer.setpoints else came
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        path = Path((points.stamp or came) - last + trajectory.times, states)  # small numbers are exact enough
        ahead = max(path.start, peer.period)
        return float((np.abs(path.at(ahead)[0] - peer.q) / peer.limits.velocity / ahead).max())

    def on_sent(self, message, info):
        came, q = info["received_timestamp"] * 1e-9, np.array(message.data)
        self.sent.append((came, q))
        if any(begin <= came <= end for begin, end in self._off):
            return
        if self._held is not None:
            limit = self.peer.limits.velocity * self.peer.period
            self.steps.append((came, float((np.abs(q - self._held) / limit).max())))
        self._held = q

    def judge(self, since, measured):
        """No command since then was beyond the limits, or made a step of more than the velocity limit allows.

        The auditor compares windows with each other, which says nothing where a controller has not followed them.
        """
        wrong = [text for text in self.wrong if "from one window to the next" not in text]
        largest = max((step for t, step in self.steps if t >= since - self.behind), default=0.0)
        measured["max_violation"] = self.peer.auditor.worst if wrong else max(largest - LARGEST_STEP, 0.0)
        self.wrong.clear()
        self.peer.auditor.worst = 0.0
        assert wrong == []
        assert largest <= LARGEST_STEP

    # -- the controller manager ----------------------------------------------------------------------------------------

    def add_manager(self):
        """A controller manager that tells which controllers are active."""
        topic = f"{self.robot}/controller_manager/activity"
        self.manager = self.client.node.create_publisher(ControllerManagerActivity, topic, LATCHED)
        self.tell_activity()
        self.client.wait_for(self.manager.get_subscription_count, "the gate to listen to activity")

    def remove_manager(self):
        if self.manager is not None:
            self.client.node.destroy_publisher(self.manager)
            self.manager = None

    def tell_activity(self):
        if self.manager is not None:
            others = NamedLifecycleState(name="joint_state_broadcaster", state=STATES[True])
            mine = NamedLifecycleState(name=self.controller, state=STATES[self.peer.active])
            self.manager.publish(ControllerManagerActivity(controllers=[others, mine]))

    def switch(self, active):
        """Activate or deactivate the controller, and tell so."""
        now, peer = self.now() - self.behind, self.peer
        peer.update(now)
        if not active:
            self._off.append((now, np.inf))
        elif self._off:
            self._off[-1] = (self._off[-1][0], now)
            self._held = peer.q.copy()
        peer.active = active
        self.tell_activity()

    def begin(self):
        """Healthy inputs, until a plan is taken."""
        self.description.publish(self.describe())
        self.until("HOLDING", timeout=30.0)
        self.client.wait_for(self.plans.get_subscription_count, "the gate to listen")
        self.settle()

    def heal(self):
        """Undo whatever a test that failed has left."""
        self.send_joints = self.send_latents = self.planner_lives = self.send_state = True
        self.peer.lost, self.peer.speed, self.spoil = 0, 1.0, None
        if not self.peer.active:
            self.switch(True)
        if self.status.state == self.status.LATCHED:
            self.release()

    # -- what a test waits for -----------------------------------------------------------------------------------------

    def go(self, duration=ARRIVING, plan_id=7):
        """Follow a plan from where the arm is measured to the end that is further away; return that end."""
        asked, here = -1.0, self.measured_now
        goal = max((START, GOAL), key=lambda end: np.abs(end - here).max())
        self.seen = len(self.statuses)

        def taken():
            nonlocal asked
            done = any(s.plan_id == plan_id for s in self.statuses[self.seen :])
            if not done and self.now() > asked + 0.3:
                asked = self.now()
                self.plan(minimum_jerk(self.measured_now, goal, duration), plan_id, ahead=0.1)
            return done

        self.client.wait_for(taken, f"a plan to be taken ({self.status.text}; {self.status.rejection_code})", 10.0)
        self.until("TRACKING")
        return goal

    def leave(self):
        """In the middle of a motion; when that is, s."""
        self.client.wait_for(lambda: self.status.state == self.status.HOLDING, "a gate that holds", 20.0)
        before = self.measured_now
        self.go(LEAVING)
        self.client.wait_for(lambda: np.abs(self.measured_now - before).max() > 0.08, "motion")
        return self.now()

    def arrive(self):
        """Go to the other end, and rest there."""
        goal = self.go()
        self.until("HOLDING")
        self.client.wait_for(lambda: np.abs(self.measured_now - goal).max() < 5e-3, "the arm at the goal", 1.0)

    def named(self, codes, since, within=2.0):
        """The first status since then with one of these codes."""

        def there():
            return next((s for s in self.statuses if to_seconds(s.header.stamp) >= since and s.code in codes), None)

        return self.client.wait_for(there, f"code {codes}, not {self.status.code} {self.status.text}", within)

    def came_to_rest(self, began, measured, named=None):
        """The arm rests: figures into `measured`."""
        self.client.wait_for(lambda: self.status.state in (self.status.HOLDING, self.status.LATCHED), "a stop")
        assert self.rests()
        last = self.positions[-1][1]
        moved = [t + self.behind for t, q in self.positions if np.abs(q - last).max() > 1e-6]
        measured["stop_ms"] = 1e3 * max(max(moved, default=began) - began, 0.0)
        if named is not None:
            measured["caught_ms"] = 1e3 * (to_seconds(named.header.stamp) - began)
