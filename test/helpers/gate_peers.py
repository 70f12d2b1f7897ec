"""A gate in a process of its own, and everything around it played by the test: arm, controller, camera, planner."""

import math

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from jepa_msgs.msg import Action, GateStatus, LatentState, Plan, PlannerStatus
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from helpers.gate_controllers import EVERY, robot_file
from helpers.gate_controllers import PEERS as PEERS
from helpers.gate_controllers import limits as limits
from helpers.gate_plans import GOAL, JOINTS, START, minimum_jerk, straight, urdf
from jepa_ros.nodes.common.convert import to_seconds, to_stamp, trajectory_message
from jepa_ros.nodes.common.qos import CONTROLLER, LATCHED
from jepa_ros.nodes.simulated_controller import JointTrajectoryControllerState, make_controller_state
from jepa_ros.robot.config import load_robot, read_robot


def reached(bench, plan_id=7):
    """A plan to the goal of its kind of controller, followed to its end; the distance left, rad."""
    plan = straight() if "Twist" in bench.kind else minimum_jerk(START, GOAL)
    bench.follow(plan, plan_id)
    bench.until("HOLDING")
    assert bench.rests() and bench.wrong == []
    return np.abs(bench.positions[-1][1] - plan.positions[-1]).max()


class Bench:
    """A gate in a namespace of its own, with an arm that goes exactly where its controller says.

    behind: s that the controllers' clock is behind the gate's; `positions` and the peer's times are by that clock.
    """

    def __init__(self, start, client, name, kind="joint_trajectory_controller/JointTrajectoryController", **parameters):
        self.client, self.name, self.kind = client, f"/{name}", kind
        robot = self.robot = parameters.get("robot_namespace", self.name)
        [interface] = [c.interface for c in read_robot(robot_file()).controllers if c.type == kind]
        # Time-outs that the test's own process, which plays everybody, keeps on a busy machine too.
        patient = {"resume_after": 0.2, "latent_timeout": 0.4, "joint_timeout": 0.3, "frozen_timeout": 0.35}
        if interface.startswith("servo"):  # its arm stands still where this process is late
            patient["following_error"] = 1.0
        patient |= {
            "robot": robot_file(),
            "command_interface": interface,
            "latent_stamp_timeout": 1.0,
            "joint_stamp_timeout": 0.6,
            "planner_timeout": 0.4,
            **parameters,
        }
        self.process = start("jepa_ros.nodes.arm_gate", patient, {"__ns": self.name})
        node = client.node
        self.peer, self.windows = EVERY[kind](), []
        [controller] = load_robot(robot_file(), interface).controllers
        self.command_topic = f"{robot}/{controller.command_topic}"
        self.controller, self.behind, self.state = controller.name, 0.0, None
        if JointTrajectoryControllerState is not None and hasattr(self.peer, "arm"):
            topic = f"{robot}/{controller.name}/controller_state"
            self.state = node.create_publisher(JointTrajectoryControllerState, topic, LATCHED)
        self.listen()
        self.description = node.create_publisher(String, f"{robot}/robot_description", LATCHED)
        self.joints = node.create_publisher(JointState, f"{robot}/joint_states", LATCHED)
        self.latents = node.create_publisher(LatentState, f"{self.name}/latent", 10)
        self.plans = node.create_publisher(Plan, f"{self.name}/plan", 10)
        self.planner = node.create_publisher(PlannerStatus, f"{self.name}/planner_status", 10)
        self.seen = 0
        self.statuses = client.collect(GateStatus, f"{self.name}/gate_status", 200)
        self.diagnostics = client.collect(DiagnosticArray, "/diagnostics", 50)
        self.executed = client.collect(Action, f"{self.name}/executed", 50)
        self.send_joints = self.send_latents = self.planner_lives = self.send_state = True
        self.frozen = self.spoil = None  # spoil: what is done to each joint state before it is sent
        self.stops_before = 0
        self.positions = []
        self.timers = [node.create_timer(0.01, self.publish_joints), node.create_timer(0.05, self.publish_latent)]
        self.timers.append(node.create_timer(0.02, self.publish_state))

    def listen(self):
        """Be a controller, where there is a message to hear; those of ros2_control may miss one."""
        kind, topic = self.peer.message, self.command_topic
        qos = QoSProfile(depth=50) if "moveit_servo" in self.kind else CONTROLLER
        if kind is not None:
            self.subscription = self.client.node.create_subscription(kind, topic, self.on_command, qos)

    @staticmethod
    def describe():
        return String(data=urdf())

    def release(self):
        assert self.client.call(Trigger, f"{self.name}/release", Trigger.Request()).success
        self.until("HOLDING")

    @property
    def newest_diagnostics(self):
        """What the gate's newest diagnostics say of motion."""
        mine = [s for m in self.diagnostics for s in m.status if f"{self.name[1:]}" in s.name and "motion" in s.name]
        return [s.message for s in mine[-1:]]

    def said(self, level):
        return [s.message for m in self.diagnostics for s in m.status if "motion" in s.name and s.level == level]

    @property
    def errors(self):
        return self.said(DiagnosticStatus.ERROR)

    @property
    def warnings(self):
        return self.said(DiagnosticStatus.WARN)

    def close(self):
        for timer in self.timers:
            self.client.node.destroy_timer(timer)
        self.process.end()

    def now(self):
        return self.client.node.get_clock().now().nanoseconds * 1e-9

    @property
    def measured_now(self):
        """(J,) rad"""
        return self.peer.update(self.now() - self.behind).copy()

    def publish_joints(self):
        now = self.now() - self.behind
        q = self.peer.update(now)
        self.positions.append((now, q))
        if self.send_joints and not self.peer.stalls(now):
            message = JointState(name=["finger", *JOINTS], velocity=[0.0] * 8, effort=[math.nan] * 8)
            assert sorted(message.name) == message.name, "joint_state_broadcaster sorts them"
            message.position = [0.0, *(q if self.frozen is None else self.frozen)]
            message.header.stamp = to_stamp(round(now * 1e9))
            if self.spoil is not None:
                self.spoil(message)
            self.joints.publish(message)

    def publish_state(self):
        """controller_state, of the kind of controller that has one; a real one sends it in each cycle."""
        now, peer = self.now() - self.behind, self.peer
        if self.state is None or not self.send_state or not peer.active or peer.stalls(now):
            return
        q, arm = peer.update(now), peer.arm
        if arm.reference is None:
            return
        stamp = to_stamp(round(now * 1e9))
        self.state.publish(make_controller_state(stamp, JOINTS, arm.reference, arm.output, q, 0 * q, peer.speed))

    def publish_latent(self):
        if self.send_latents:
            message = LatentState()
            message.header.stamp = to_stamp(round((self.now() - 0.05) * 1e9))
            self.latents.publish(message)
        if self.planner_lives:
            self.planner.publish(PlannerStatus())

    def on_command(self, message, info: dict):
        came = (
            info["received_timestamp"] * 1e-9 - self.behind
        )  # this process may be slow to look at it, which a controller is not
        self.windows.append((came, message))
        self.peer.hear(message, came)

    @property
    def wrong(self):
        return self.peer.auditor.violations

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

    def stop_of(self, began, measured, timeout=None):
        """The stop that a fault at `began` (s) has brought about: figures into `measured`; the arm rests at its end.

        timeout: s after which the gate was to notice, where it was by a time-out that the fault's silence wore out.
        """
        stopping = self.until("STOPPING", timeout=5.0)
        assert self.rests()
        last = self.positions[-1][1]
        rest = next(t for t, q in reversed(self.positions) if np.abs(q - last).max() > 1e-6)
        measured["stop_ms"], measured["max_violation"] = 1e3 * (rest - began), self.peer.auditor.worst
        if timeout is not None:
            measured["caught_ms"] = 1e3 * (to_seconds(stopping.header.stamp) - began - timeout)
        return stopping

    def ready(self):
        """At the start position, holding, with healthy inputs for long enough that a plan is taken."""
        self.send_joints = self.send_latents = self.planner_lives = True
        self.frozen = None
        self.description.publish(self.describe())
        self.seen = len(self.statuses)
        if self.status.state == GateStatus.LATCHED:  # left so by a test that failed
            self.release()
        self.until("HOLDING", timeout=30.0)
        self.client.wait_for(self.plans.get_subscription_count, "the gate to listen")
        for _ in range(5):  # joint states that thaw count as a jump, which may end the way there
            self.follow(minimum_jerk(self.measured_now, START), 99)
            self.until("HOLDING", timeout=5.0)
            if np.abs(self.measured_now - START).max() < 1e-3:
                break
        self.positions.clear()
        self.windows.clear()
        return self

    def moving(self):
        """In the middle of a plan to GOAL."""
        self.ready()
        self.follow(minimum_jerk(START, GOAL), 7)
        self.client.wait_for(lambda: np.abs(self.measured_now - START).max() > 0.05, "motion")
        self.stops_before = self.status.stops
        return self

    def settle(self):
        """Inputs have been healthy for as long as it takes until a plan is let in."""
        began = self.now()
        self.client.wait_for(lambda: self.now() > began + 0.5 and self.status.state == GateStatus.HOLDING, "health")

    def rests(self):
        """The arm comes to rest and stays there."""
        self.client.wait_for(lambda: len(self.positions) > 30 and self.still(), "the arm to rest", 3.0)
        count = len(self.positions)
        self.client.wait_for(lambda: len(self.positions) > count + 20, "time to pass")
        return self.still()

    def still(self):
        return np.ptp([q for _, q in self.positions[-15:]], axis=0).max() < 1e-9
