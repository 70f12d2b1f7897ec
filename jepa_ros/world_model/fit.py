"""Checks that a model fits a robot: the same action space, joints and control period. Without torch, for bring-ups."""

from __future__ import annotations

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig, VelocityConfig
from jepa_ros.world_model.config import ModelConfig

CAMERA_TOPIC = "frame"  # published by the camera node of a bring-up
PERIOD_TOLERANCE = 1e-4  # s


def check_robot(config: ModelConfig, robot: RobotConfig) -> None:
    """Raise InputError if the model's action space or joints do not fit the robot."""
    wanted, found, name = config.action, robot.action_space, f"model {config.name}"
    if wanted.name != found.type:
        expected = f"a robot with action space {wanted.name}"
        raise InputError(f"{name}: expected {expected}, found {found.type} on {robot.name}")
    if wanted.dimension != found.dimension:
        actual = f"{found.type} of {found.dimension} on {robot.name}"
        raise InputError(f"{name}: expected actions of {wanted.dimension} numbers, found {actual}")
    if isinstance(found, VelocityConfig):
        speeds = [_describe_speeds(one.max_speed, getattr(one, "max_yaw_speed", None)) for one in (wanted, found)]
        if speeds[0] != speeds[1]:
            raise InputError(
                f"{name}: expected a robot with action space {wanted.name} of {speeds[0]}, "
                f"found {found.type} of {speeds[1]} on {robot.name}"
            )
    state = config.proprioception
    if state.kind == "joints" and state.dimension and state.joints != tuple(robot.joints):
        raise InputError(f"{name}: expected the joints {list(state.joints)}, found {robot.joints} on {robot.name}")


def check_fit(config: ModelConfig, robot: RobotConfig, control_period: float | None = None) -> None:
    """Raise InputError, in one line, where the nodes of a bring-up could not control this robot with this model.

    control_period: that of arm_gate in s; None: not compared.
    """
    check_robot(config, robot)
    name = f"model {config.name}"
    if CAMERA_TOPIC not in config.cameras:
        found = ", ".join(config.cameras)
        raise InputError(
            f"{name}: expected the camera topic {CAMERA_TOPIC} among its cameras, which the camera node publishes, "
            f"found {found}"
        )
    if control_period is not None and abs(control_period - config.tick) > PERIOD_TOLERANCE:
        raise InputError(
            f"{name}: expected a control period of {config.tick:g} s, found {control_period:g} s: "
            "set control_period of arm_gate to the model's"
        )
    require_search_limits(robot)


def _describe_speeds(speed: float | None, yaw: float | None) -> str:
    return f"{speed} m/s" if yaw is None else f"{speed} m/s and {yaw} rad/s"


def require_search_limits(robot: RobotConfig) -> None:
    """Raise InputError where the robot's action space lacks what planning needs."""
    if missing := getattr(robot.action_space, "missing", None):
        wanted = " and ".join(missing)
        raise InputError(f"robot {robot.name}: action_space: expected {wanted} for planning, found none")
