"""The gripper of arm_gate: each interface receives the opening; a stop leaves the gripper as it is."""

import math

import pytest
import yaml
from rclpy.action import ActionServer
from std_msgs.msg import Float64, Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from helpers.gate_controllers import robot_file
from helpers.gate_peers import Bench
from helpers.gate_plans import urdf
from helpers.nodes import hide_package

try:
    from control_msgs.action import GripperCommand
except ImportError:
    GripperCommand = None  # it comes with distributions, not with the wheels

from jepa_ros.nodes.common.convert import to_seconds
from jepa_ros.robot.config import load_robot

pytestmark = pytest.mark.graph

CLOSED, OPEN, EFFORT = 0.0, -0.8, 7.0
FINGER = (
    '<link name="tip"/><joint name="finger" type="revolute"><parent link="{}"/><child link="tip"/>'
    f'<axis xyz="0 0 1"/><limit lower="{OPEN}" upper="{CLOSED}" velocity="1" effort="1"/></joint></robot>'
)


class Gripper:
    """A gate with a gripper, and its controller: told is what that was told, positions in rad."""

    def __init__(self, start, client, interface, folder):
        topic = f"{interface}_controller/command"
        controller = {"interface": interface, "topic": topic, "open": "lower", "max_effort": EFFORT}
        config = yaml.safe_load(robot_file().read_text()) | {"gripper": ["finger"], "gripper_controller": controller}
        file = folder / "arm.yaml"
        file.write_text(yaml.safe_dump(config))
        description = urdf().replace("</robot>", FINGER.format(load_robot(file).tool_frame))
        self.bench = Bench(start, client, f"gripper_{interface}", robot=file)
        self.bench.describe = lambda: String(data=description)
        self.client, self.told, self.seconds, node = client, [], [], client.node
        if interface == "gripper_command":
            ActionServer(node, GripperCommand, f"{self.bench.name}/{topic}", self.on_goal)
        else:
            kind = JointTrajectory if interface == "joint_trajectory" else Float64MultiArray
            node.create_subscription(kind, f"{self.bench.name}/{topic}", self.on_message, 10)
        self.opening = node.create_publisher(Float64, f"{self.bench.name}/gripper", 10)

    def on_message(self, message):
        if isinstance(message, Float64MultiArray):
            self.told += message.data
            return
        [point] = message.points
        assert message.joint_names == ["finger"]
        self.told += point.positions
        self.seconds.append(to_seconds(point.time_from_start))

    def on_goal(self, handle):
        assert handle.request.command.max_effort == EFFORT
        self.told.append(handle.request.command.position)
        handle.succeed()
        return GripperCommand.Result()

    def ask(self, opening):
        self.opening.publish(Float64(data=opening))

    def hears(self, position):
        self.client.wait_for(lambda: self.told and math.isclose(self.told[-1], position), f"{position} rad")


def interfaces():
    yield "joint_trajectory"
    yield "forward_command"
    missing = pytest.mark.skipif(GripperCommand is None, reason="control_msgs is not installed")
    yield pytest.param("gripper_command", marks=missing)


@pytest.mark.parametrize("interface", list(interfaces()))
def test_the_gripper_opens_to_the_requested_width_unless_the_gate_is_latched(start, client, tmp_path, interface):
    gripper = Gripper(start, client, interface, tmp_path)
    bench = gripper.bench
    bench.ready()
    client.wait_for(gripper.opening.get_subscription_count, "the gate to listen")
    gripper.ask(1.0)
    gripper.hears(OPEN)
    for opening in (math.nan, 1.5, -0.1, 1.0, 0.25):  # of these one is new and can be done
        gripper.ask(opening)
    gripper.hears(0.25 * OPEN)
    assert len(gripper.told) == 2
    bench.process.says("gripper: expected 0 (closed) to 1 (open), found nan")
    if gripper.seconds:
        assert gripper.seconds == pytest.approx([1.0, 0.75])
    assert client.call(Trigger, f"{bench.name}/stop", Trigger.Request()).success
    bench.until("LATCHED")
    gripper.ask(0.0)
    bench.process.says("gripper command dropped: latched")
    bench.release()
    gripper.ask(0.5)
    gripper.hears(0.5 * OPEN)
    assert len(gripper.told) == 3 and bench.wrong == []
    bench.close()


def test_a_gripper_that_cannot_be_commanded_is_reported_and_the_arm_moves(start, client, monkeypatch, tmp_path):
    gripper = Gripper(start, client, "forward_command", tmp_path)
    gripper.bench.close()
    file = tmp_path / "arm.yaml"
    file.write_text(file.read_text().replace("forward_command\n", "gripper_command\n"))
    (hidden := tmp_path / "hidden").mkdir()
    hide_package(monkeypatch, hidden, "control_msgs")
    bench = Bench(start, client, "no_gripper", robot=file)
    bench.ready()
    assert "the gripper is not commanded: ROS package control_msgs not found" in bench.process.output
    bench.close()
