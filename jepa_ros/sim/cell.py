"""Scene, gate and controller in one process and simulated time: the control part of the graph, without ROS.

Data collection and closed-loop evaluation use it, so that models are trained and evaluated on motion that passed the
gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.gate.gate import Gate
from jepa_ros.robot.gate.types import ExecutedTick, GateSettings
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.motion.trajectory_points import Points
from jepa_ros.robot.motion.velocity_space import VelocitySpace, make_velocity_space
from jepa_ros.sim.controller import TrajectoryController
from jepa_ros.sim.scene import Scene

CYCLE = 0.01  # s, period of controller and gate


def make_action_space(robot: RobotConfig, urdf: str, period: float = 0.1) -> VelocitySpace:
    """Return the robot's velocity space for a description, with a control period in s. Raises InputError where the
    robot has another action space."""
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    return make_velocity_space(robot, kinematics, period)


class ArmCell:
    """One arm of the scene behind its gate. The gate does not wait for inputs of the live graph, such as latents."""

    def __init__(self, scene: Scene, robot: RobotConfig, period: float = 0.1):
        self.scene, self.robot = scene, robot
        self.space = make_action_space(robot, scene.urdf, period)
        live = {"latent_timeout": np.inf, "planner_timeout": np.inf}
        settings = GateSettings(control_period=period, resume_after=0.0, source_timeout=60.0, plan_max=600.0, **live)
        self.limits = JointLimits.from_robot(robot, scene.urdf)
        self.gate = Gate(self.limits, settings, self.space.executed)
        self.joints = tuple(robot.joints)
        self.controller = TrajectoryController(self.joints)

    def find_violation(self, trajectory: JointTrajectory) -> str:
        """Return why a motion exceeds joint limits or comes too close to the robot itself, in one sentence, or "".

        In a plane nothing is checked: its polygon is made so that all motion in it is possible.
        """
        if self.space.axes == 2:
            return ""
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        path = Path(trajectory.times, states).divided()
        use = self.limits.compute_usage(path)
        return self._clearance.check_path(path) if use.within_limits else use.text

    @cached_property
    def _clearance(self) -> Clearance:
        return Clearance.from_robot(self.robot, self.scene.urdf, self.space.kinematics, self.limits, self.space.border)

    def reset(self, q: np.ndarray) -> None:
        """Put the arm at rest at q (J,) rad with the gate holding it, and everything else home."""
        self.scene.reset(dict(zip(self.joints, q, strict=True)))
        self.controller.hold(q)
        self.gate.reset()
        for _ in self.advance(CYCLE):
            pass

    def advance(self, seconds: float) -> Iterator[ExecutedTick]:
        """Run gate, controller and physics for `seconds` (whole cycles); yield control ticks as they complete."""
        for _ in range(max(1, round(seconds / CYCLE))):
            now = self.scene.time
            names, positions, velocities, _ = self.scene.joint_state()
            self.gate.update_joint_states(names, positions, velocities, now, now)
            output = self.gate.tick(now)
            if output.window is not None:
                window = Points.from_trajectory(output.window.trajectory, output.window.start)
                self.controller.accept(window, now)
            measured, speeds = self.scene.positions(self.joints), self.scene.velocities(self.joints)
            self.scene.command(self.joints, self.controller.update(now, measured, speeds))
            self.scene.step(CYCLE)
            yield from output.executed

    def proprioception(self, gripper: tuple[str, ...]) -> np.ndarray:
        """Return proprioception (P,): joint positions rad, joint velocities rad/s, gripper positions rad."""
        return np.concatenate(
            [self.scene.positions(self.joints), self.scene.velocities(self.joints), self.scene.positions(gripper)]
        )
