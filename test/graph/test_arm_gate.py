"""The arm_gate process between a planner and a controller that are played by the test."""

import signal
import time

import numpy as np
import pytest
from jepa_msgs.msg import Action, GateStatus, LatentState, Plan
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from jepa_ros.nodes.convert import to_seconds, to_stamp, trajectory_message, trajectory_of
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.trajectory import JointTrajectory
from jepa_ros.sim.controller import TrajectoryController

pytestmark = pytest.mark.graph

ROBOT = load_robot("openarm")
JOINTS = tuple(ROBOT.joints)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
GOAL = np.array([0.3, 0.1, -0.2, 1.2, 0.2, -0.1, 0.3])
START = np.array([ROBOT.home[j] for j in JOINTS])


def urdf():
    links = [ROBOT.base_frame, *(f"link{i}" for i in range(1, len(JOINTS))), ROBOT.tool_frame]
    inertia = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    parts = [f'<link name="{name}">{inertia}</link>' for name in links]
    for i, joint in enumerate(JOINTS):
        parts.append(
            f'<joint name="{joint}" type="revolute"><parent link="{links[i]}"/><child link="{links[i + 1]}"/>'
            f'<origin xyz="0 0 0.1"/><axis xyz="{"0 0 1" if i % 2 else "0 1 0"}"/>'
            '<limit lower="-2.5" upper="2.5" velocity="3" effort="1"/></joint>'
        )
    return f'<robot name="arm">{"".join(parts)}</robot>'


def minimum_jerk(start, goal, duration=1.2):
    t = np.arange(0.0, duration + 0.025, 0.05)
    u, way = t / t[-1], np.subtract(goal, start)
    f, fd, fdd = 10 * u**3 - 15 * u**4 + 6 * u**5, 30 * u**2 - 60 * u**3 + 30 * u**4, 60 * u - 180 * u**2 + 120 * u**3
    rows = np.outer(f, way) + start, np.outer(fd, way) / t[-1], np.outer(fdd, way) / t[-1] ** 2
    return JointTrajectory(JOINTS, t, *rows)


class Bench:
    """A gate in a namespace of its own, with an arm that goes exactly where its controller says."""

    def __init__(self, start, client, name, **parameters):
        self.client, self.name = client, f"/{name}"
        # Time-outs that the test's own process, which plays everybody, keeps on a busy machine too.
        patient = {"resume_after": 0.2, "latent_timeout": 0.4, "joint_timeout": 0.3, "frozen_timeout": 0.3}
        patient |= {"latent_stamp_timeout": 1.0, "joint_stamp_timeout": 0.6, **parameters}
        self.process = start("jepa_ros.nodes.arm_gate", patient, {"__ns": self.name})
        node = client.node
        self.controller = TrajectoryController(JOINTS)
        self.controller.hold(START)
        self.windows, self.wrong = [], []
        topic = f"{self.name}/{ROBOT.controllers[0].command_topic}"
        self.subscription = node.create_subscription(JointTrajectoryMessage, topic, self.on_window, 10)
        self.description = node.create_publisher(String, f"{self.name}/robot_description", LATCHED)
        self.joints = node.create_publisher(JointState, f"{self.name}/joint_states", 10)
        self.latents = node.create_publisher(LatentState, f"{self.name}/latent", 10)
        self.plans = node.create_publisher(Plan, f"{self.name}/plan", 10)
        self.seen = 0
        self.statuses = client.collect(GateStatus, f"{self.name}/gate_status", 200)
        self.executed = client.collect(Action, f"{self.name}/executed", 50)
        self.send_joints = self.send_latents = True
        self.frozen = None
        self.positions = []
        self.timers = [node.create_timer(0.01, self.publish_joints), node.create_timer(0.05, self.publish_latent)]

    def close(self):
        for timer in self.timers:
            self.client.node.destroy_timer(timer)

    def now(self):
        return self.client.node.get_clock().now().nanoseconds * 1e-9

    def publish_joints(self):
        now = self.now()
        q = self.controller.update(now)
        self.positions.append((now, q))
        if self.send_joints:
            message = JointState(name=["finger", *JOINTS], velocity=[0.0] * 8)
            message.position = [0.0, *(q if self.frozen is None else self.frozen)]
            message.header.stamp = to_stamp(round(now * 1e9))
            self.joints.publish(message)

    def publish_latent(self):
        if self.send_latents:
            message = LatentState()
            message.header.stamp = to_stamp(round((self.now() - 0.05) * 1e9))
            self.latents.publish(message)

    def on_window(self, message):
        self.windows.append((self.now(), message))
        try:
            trajectory = trajectory_of(message)
            self.wrong += broken_limits(trajectory)
            self.controller.accept(trajectory, to_seconds(message.header.stamp), self.now())
        except ValueError as error:
            if "in the past" not in str(error):  # that is this process having slept, on a machine that is too busy
                self.wrong.append(str(error))

    def plan(self, trajectory, plan_id=1, valid=3.0, ahead=0.15):
        now = self.now()
        message = Plan(plan_id=plan_id, trajectory=trajectory_message(trajectory))
        message.header.stamp = to_stamp(round((now + ahead) * 1e9))
        message.source_stamp = to_stamp(round((now - 0.1) * 1e9))
        message.valid_until = to_stamp(round((now + valid) * 1e9))
        self.plans.publish(message)
        return message

    def follow(self, trajectory, plan_id, **times):
        """A plan from rest, asked again until it is taken: inputs must have been healthy, discovery be over."""
        asked, self.seen = -1.0, len(self.statuses)

        def taken():
            nonlocal asked
            done = any(s.plan_id == plan_id for s in self.statuses[self.seen :])
            if not done and self.now() > asked + 0.5:
                asked = self.now()
                self.plan(trajectory, plan_id, **times)
            return done

        self.client.wait_for(taken, f"plan {plan_id} to be taken ({self.status.text})")
        self.until("TRACKING")

    @property
    def status(self):
        return self.statuses[-1] if self.statuses else GateStatus()

    def until(self, state, word="", timeout=10.0):
        """The next status like that, however late it is looked at; later ones are looked for after it."""
        wanted = getattr(GateStatus, state)

        def there():
            for i, s in enumerate(self.statuses[self.seen :]):
                if s.state == wanted and word in s.text:
                    self.seen += i
                    return s

        return self.client.wait_for(there, f"{state} {word!r}", timeout)

    def ready(self):
        """At the start position, holding, with healthy inputs for long enough that a plan is taken."""
        self.send_joints, self.send_latents, self.frozen = True, True, None
        self.description.publish(String(data=urdf()))
        self.seen = len(self.statuses)
        self.until("HOLDING", timeout=30.0)
        self.client.wait_for(self.plans.get_subscription_count, "the gate to listen")
        for _ in range(5):  # joint states that thaw count as a jump, which may end the way there
            self.follow(minimum_jerk(self.controller.update(self.now()), START), 99)
            self.until("HOLDING", timeout=5.0)
            if np.abs(self.controller.update(self.now()) - START).max() < 1e-3:
                break
        self.positions.clear()
        self.windows.clear()
        return self

    def moving(self):
        """In the middle of a plan to GOAL."""
        self.ready()
        self.follow(minimum_jerk(START, GOAL), 7)
        self.client.wait_for(lambda: np.abs(self.controller.update(self.now()) - START).max() > 0.05, "motion")
        return self

    def rests(self):
        """The arm comes to rest and stays there."""
        self.client.wait_for(lambda: len(self.positions) > 30 and self.still(), "the arm to rest", 3.0)
        count = len(self.positions)
        self.client.wait_for(lambda: len(self.positions) > count + 20, "time to pass")
        return self.still()

    def still(self):
        return np.ptp([q for _, q in self.positions[-15:]], axis=0).max() < 1e-9


def broken_limits(trajectory):
    """What of a window is out of the limits of the robot's YAML, at 5 ms."""
    _, qd, qdd = trajectory.sample(np.arange(0.0, trajectory.duration, 0.005))
    keys = [ROBOT.joint_limits[j] for j in trajectory.names]
    checks = {
        "velocity": np.abs(qd) <= np.array([k.max_velocity for k in keys]) * 1.001,
        "acceleration": np.abs(qdd) <= np.array([k.max_acceleration for k in keys]) * 1.001,
        "jerk": np.abs(np.diff(qdd, axis=0)) <= np.array([k.max_jerk for k in keys]) * 0.005 * 1.01,
        "end": (trajectory.velocities[-1] == 0.0) & (trajectory.accelerations[-1] == 0.0),
    }
    return [name for name, kept in checks.items() if not np.all(kept)]


@pytest.fixture(scope="module")
def bench(start, client):
    made = Bench(start, client, "gate")
    yield made
    made.close()
    assert made.wrong == []


def test_follows_a_plan_and_reports_what_was_executed(bench):
    bench.ready()
    bench.executed.clear()
    bench.follow(minimum_jerk(START, GOAL), 5)
    bench.until("HOLDING")
    assert bench.rests()
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)
    followed = [e for e in bench.executed if e.plan_id == 5]
    assert len(followed) >= 11 and followed[0].action_space == "planar_velocity"
    assert followed[0].header.frame_id == ROBOT.base_frame and len(followed[0].values) == 2
    stamps = np.array([to_seconds(e.header.stamp) for e in bench.executed])
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-6)
    assert max(np.abs(e.values).max() for e in followed) > 0.05
    assert 10 < len(bench.windows) < 40
    speeds = np.abs(np.diff([q for _, q in bench.positions], axis=0)).max(axis=1)
    assert speeds.max() < 0.03  # no step: 1.875 * 0.4 rad / 1.2 s in 10 ms, with the timer's jitter


@pytest.mark.parametrize(
    "cut, word, within",
    [("latents", "latent", 0.4), ("joints", "joint_states", 0.3), ("frozen", "frozen", 0.3)],
)
def test_stops_smoothly_when_an_input_goes_stale(bench, cut, word, within):
    bench.moving()
    began = bench.now()
    if cut == "frozen":
        bench.frozen = bench.controller.update(began)
    else:
        setattr(bench, f"send_{cut}", False)
    stopped = bench.until("STOPPING", word, 3.0)
    assert to_seconds(stopped.header.stamp) - began < within + 0.3  # of a machine that may be busy
    bench.until("HOLDING", timeout=3.0)
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02


def test_stops_when_no_newer_plan_comes(bench):
    bench.ready()
    bench.follow(minimum_jerk(START, GOAL, 1.6), 8, valid=0.8)
    bench.until("STOPPING", "expired")
    bench.until("HOLDING")
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02


def test_a_plan_with_nan_is_rejected_whole_and_the_one_in_force_goes_on(bench):
    bench.moving()
    rejected = bench.status.rejected
    bad = trajectory_message(minimum_jerk(START, GOAL))
    bad.points[3].positions[2] = float("nan")
    message = Plan(plan_id=9, trajectory=bad)
    message.header.stamp = message.source_stamp = to_stamp(round(bench.now() * 1e9))
    message.valid_until = to_stamp(round((bench.now() + 2.0) * 1e9))
    bench.plans.publish(message)
    bench.client.wait_for(lambda: bench.status.rejected == rejected + 1, "the rejection")
    bench.until("HOLDING")
    assert bench.rests()
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)


def test_stop_and_release_services(bench):
    bench.moving()
    asked = time.monotonic()
    assert bench.client.call(Trigger, f"{bench.name}/stop", Trigger.Request()).success
    bench.until("LATCHED", "stop")
    assert time.monotonic() - asked < 2.0 and bench.rests()
    rejected = bench.status.rejected
    bench.plan(minimum_jerk(bench.positions[-1][1], GOAL))
    bench.client.wait_for(lambda: bench.status.rejected == rejected + 1, "the plan to be refused")
    assert bench.client.call(Trigger, f"{bench.name}/release", Trigger.Request()).success
    bench.until("HOLDING")
    bench.ready()


@pytest.mark.parametrize("durability", [DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE])
def test_e_stop_latches_and_holds_release_back_while_it_lasts(bench, durability):
    bench.ready()
    publisher = bench.client.node.create_publisher(
        Bool, f"{bench.name}/e_stop", QoSProfile(depth=1, durability=durability)
    )
    bench.client.wait_for(publisher.get_subscription_count, "the gate to listen")
    bench.moving()
    publisher.publish(Bool(data=True))
    bench.until("LATCHED", "e-stop")
    answer = bench.client.call(Trigger, f"{bench.name}/release", Trigger.Request())
    assert not answer.success and "e-stop" in answer.message
    publisher.publish(Bool(data=False))
    assert bench.rests() and bench.status.state == GateStatus.LATCHED
    assert bench.client.call(Trigger, f"{bench.name}/release", Trigger.Request()).success
    bench.until("HOLDING")
    bench.client.node.destroy_publisher(publisher)


def test_deactivated_in_motion_it_stops_first_and_an_illegal_request_is_survived(bench):
    bench.moving()
    count = len(bench.windows)
    assert bench.client.transition(f"{bench.name}/arm_gate", "deactivate")
    bench.until("INACTIVE")
    assert len(bench.windows) > count
    assert bench.rests()
    assert not bench.client.transition(f"{bench.name}/arm_gate", "deactivate")
    assert bench.client.transition(f"{bench.name}/arm_gate", "activate")
    bench.ready()


def test_a_second_publisher_of_commands_is_noticed(bench):
    bench.moving()
    topic = f"{bench.name}/{ROBOT.controllers[0].command_topic}"
    rival = bench.client.node.create_publisher(JointTrajectoryMessage, topic, 10)
    bench.until("STOPPING", "somebody else")
    bench.until("HOLDING")
    rejected = bench.status.rejected
    bench.plan(minimum_jerk(bench.positions[-1][1], START))
    bench.client.wait_for(lambda: bench.status.rejected > rejected, "the plan to be refused")
    bench.client.node.destroy_publisher(rival)
    bench.ready()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_motion_stops_the_arm_before_the_process_ends(start, client, number):
    bench = Bench(start, client, f"signal{int(number)}")
    bench.moving()
    count = len(bench.windows)
    bench.process.signal(number)
    client.wait_for(lambda: bench.process.process.poll() is not None, "the process to end", 10)
    assert bench.process.wait() == 0, bench.process.output
    client.wait_for(lambda: len(bench.windows) > count, "the stop")
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02
    assert bench.wrong == [] and "Traceback" not in bench.process.output
    bench.close()


def test_killed_in_motion_the_arm_stops_by_construction(start, client):
    bench = Bench(start, client, "killed")
    bench.moving()
    bench.process.signal(signal.SIGKILL)
    died = bench.now()
    client.wait_for(lambda: bench.now() > died + 0.8, "the last window to run out")
    assert bench.rests()
    bench.close()


def test_windows_without_stamps_reach_the_goal_too(start, client):
    bench = Bench(start, client, "unstamped", command_stamps="zero")
    bench.ready()
    bench.follow(minimum_jerk(START, GOAL), 6)
    bench.until("HOLDING")
    assert bench.rests() and all(to_seconds(m.header.stamp) == 0.0 for _, m in bench.windows)
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)
    bench.close()


def test_waits_for_the_robot_description_and_refuses_one_that_does_not_fit(start, client):
    bench = Bench(start, client, "late")
    bench.process.says("waiting: no robot_description", 30.0)
    bench.description.publish(String(data=urdf().replace(JOINTS[2], "elbow")))
    bench.process.says(f"joint {JOINTS[2]}: expected in the robot description")
    assert bench.client.state(f"{bench.name}/arm_gate") == "unconfigured"
    bench.description.publish(String(data=urdf()))
    client.wait_for(lambda: client.transition(f"{bench.name}/arm_gate", "configure"), "the right description")
    assert client.transition(f"{bench.name}/arm_gate", "activate")
    bench.ready()
    bench.close()


def test_never_loads_torch():
    import subprocess
    import sys

    code = (
        "import sys, jepa_ros.nodes.arm_gate, jepa_ros.robot.action_space, jepa_ros.robot.kinematics; "
        "assert not {'torch', 'mujoco'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
