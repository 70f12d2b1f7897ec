"""A controller and its manager, each of which may answer late or never; told by ROS parameters.

The controller subscribes to commands from the start. Its services, and the manager's, come when `controller` and
`manager` say: `now`, `late`, `mute` (there, but without an answer) or `never`.
"""

from __future__ import annotations

import sys

import rclpy
import rclpy.executors
from control_msgs.msg import JointTrajectoryControllerState
from controller_manager_msgs.msg import ControllerState
from controller_manager_msgs.srv import ListControllers
from rclpy.parameter_service import ParameterService
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.robot.config import load_robot

ROBOT = load_robot("openarm")
NAME = ROBOT.controllers[0].name
LATE = 2.0  # s


class FakeControllers:
    """See the module."""

    def __init__(self) -> None:
        self.executor = rclpy.executors.SingleThreadedExecutor()
        self.told = rclpy.create_node("fake_controllers")
        self.executor.add_node(self.told)
        options = {"use_global_arguments": True, "start_parameter_services": False}
        self.controller = rclpy.create_node(NAME, **options)
        self.manager = rclpy.create_node("controller_manager", **options)
        self.manager.declare_parameter("enforce_command_limits", False)
        is_forward = self.ask("forward", False)
        if is_forward:
            self.controller.declare_parameter("interface_name", "position")
            self.controller.create_subscription(Float64MultiArray, "~/commands", lambda m: None, 10)
        else:
            self.controller.declare_parameter("command_interfaces", ["position"])
            self.controller.declare_parameter("interpolation_method", "splines")
            self.controller.create_subscription(JointTrajectory, "~/joint_trajectory", lambda m: None, 10)
            self.factor = self.ask("speed_scaling", 1.0)
            self.state = self.told.create_publisher(JointTrajectoryControllerState, f"/{NAME}/controller_state", 10)
            self.told.create_timer(0.02, self.publish_state)
        order = -1 if self.ask("reversed", False) else 1
        self.controller.declare_parameter("joints", ROBOT.joints[::order])
        self.state_name = self.ask("state", "active")
        self.open(self.ask("controller", "now"), self.controller, self.open_controller)
        self.open(self.ask("manager", "now"), self.manager, self.open_manager)

    def ask(self, name, default):
        return self.told.declare_parameter(name, default).value

    def open(self, when, node, make):
        if when != "mute":
            self.executor.add_node(node)
        if when in ("now", "mute"):
            make()
        elif when == "late":
            timer = self.told.create_timer(LATE, lambda: (timer.cancel(), make()))

    def open_controller(self):
        self.parameters = ParameterService(self.controller)

    def open_manager(self):
        self.manager_parameters = ParameterService(self.manager)
        self.manager.create_service(ListControllers, "~/list_controllers", self.list_controllers)

    def list_controllers(self, request, response):
        response.controller = [ControllerState(name=NAME, state=self.state_name)]
        return response

    def publish_state(self):
        self.state.publish(JointTrajectoryControllerState(speed_scaling_factor=self.factor))


def main() -> int:
    rclpy.init()
    fake = FakeControllers()
    print("ready", flush=True)
    try:
        fake.executor.spin()
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
