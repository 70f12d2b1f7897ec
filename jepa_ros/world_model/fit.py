"""Whether a model fits a robot: the same action space, joints and control period. Without torch, for bring-ups."""

from __future__ import annotations

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ModelConfig

CAMERA_TOPIC = "frame"  # published by the camera node of a bring-up
DIMENSIONS = {"planar_velocity": 2, "pose_delta": 7}  # numbers of an action; held to the action spaces by a test
PERIOD_TOLERANCE = 1e-4  # s


def check_robot(config: ModelConfig, robot: RobotConfig) -> None:
    """Raise InputError if the model's action space or joints do not fit the robot."""
    wanted, found, name = config.action, robot.action_space, f"model {config.name}"
    if wanted.name != found.type:
        expected = f"a robot with action space {wanted.name}"
        raise InputError(f"{name}: expected {expected}, found {found.type} on {robot.name}")
    if wanted.dimension != DIMENSIONS[found.type]:
        actual = f"{found.type} of {DIMENSIONS[found.type]} on {robot.name}"
        raise InputError(f"{name}: expected actions of {wanted.dimension} numbers, found {actual}")
    if found.type == "planar_velocity" and wanted.max_speed != found.max_speed:
        raise InputError(
            f"{name}: expected a robot with action space {wanted.name} of {wanted.max_speed} m/s, "
            f"found {found.type} of {found.max_speed} m/s on {robot.name}"
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


def require_search_limits(robot: RobotConfig) -> None:
    """Raise InputError where the robot's action space lacks what planning needs."""
    if missing := getattr(robot.action_space, "missing", None):
        wanted = " and ".join(missing)
        raise InputError(f"robot {robot.name}: action_space: expected {wanted} for planning, found none")
