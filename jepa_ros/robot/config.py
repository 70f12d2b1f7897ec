"""What the stack must know of a robot beyond its URDF: config/robots/<name>.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jepa_ros.errors import InputError, first_problem
from jepa_ros.resources import resolve_robot


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ControllerConfig(_Strict):
    """A ros2_control controller that the gate may command."""

    name: str
    type: Literal["joint_trajectory_controller/JointTrajectoryController"]
    joints: list[str]

    @property
    def command_topic(self) -> str:
        """Topic of the controller's trajectories, relative to the namespace."""
        return f"{self.name}/joint_trajectory"


class PlanarVelocityConfig(_Strict):
    """Planar velocity of the tool at a fixed height; see robot/action_space.py."""

    type: Literal["planar_velocity"]
    max_speed: float = Field(gt=0, le=2.0, description="m/s of a component of 1")
    max_acceleration: float = Field(gt=0, le=20.0, description="m/s^2, mean over a control tick")
    height: float = Field(description="m, of the tool frame over the base frame's origin")
    workspace: list[tuple[float, float]] = Field(min_length=3, description="convex polygon, counter-clockwise, m")


class PoseDeltaConfig(_Strict):
    """Change of the tool's pose over a control tick; see robot/pose_delta.py.

    The bounds are for a search in this space; what the gate keeps are the joints' limits.
    """

    type: Literal["pose_delta"]
    max_translation: float = Field(gt=0, le=0.5, description="m a control tick")
    max_rotation: float = Field(gt=0, le=1.5, description="rad a control tick")
    gripper_zero: Literal["lower", "upper"] = Field(
        "lower", description="limit of the first gripper joint at which the gripper's number is 0; at the other it is 1"
    )


class JointLimitConfig(_Strict):
    """MoveIt's joint_limits keys, in rad and s."""

    max_velocity: float = Field(gt=0)
    has_acceleration_limits: bool = False
    max_acceleration: float | None = Field(default=None, gt=0)
    has_jerk_limits: bool = False
    max_jerk: float | None = Field(default=None, gt=0)
    min_position: float | None = None
    max_position: float | None = None


class CameraConfig(_Strict):
    """Where the camera that the model was trained with publishes."""

    frame_id: str
    topic: str


class KeepOutConfig(_Strict):
    """A box that the arm must stay out of: lowest and highest corner, m in the base frame."""

    name: str = Field(min_length=1)
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @model_validator(mode="after")
    def _corners_in_order(self) -> KeepOutConfig:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"{self.name}: expected low < high on every axis, found {self.low} and {self.high}")
        return self


class SelfCollisionConfig(_Strict):
    """How far the arm's links stay from each other and from the rest of the robot; see robot/collision.py."""

    margin: float = Field(default=0.02, ge=0, le=0.5, description="m between two links")
    ignore: list[tuple[str, str]] = Field(default=[], description="pairs of links that may touch")


class RobotConfig(_Strict):
    """One arm (one side of a bimanual robot) and how it is commanded."""

    name: str
    joints: list[str] = Field(min_length=1)
    base_frame: str
    tool_frame: str
    controllers: list[ControllerConfig] = Field(min_length=1)
    action_space: PlanarVelocityConfig | PoseDeltaConfig = Field(discriminator="type")
    joint_limits: dict[str, JointLimitConfig]
    position_margin: float = Field(ge=0, le=0.5, description="rad kept to every position limit")
    home: dict[str, float] = Field(description="rad, the posture that inverse kinematics leans to")
    gripper: list[str] = Field(default=[], description="gripper joints, part of the proprioception")
    camera: CameraConfig
    keep_out: list[KeepOutConfig] = Field(default=[], description="boxes that the arm stays out of")
    self_collision: SelfCollisionConfig | None = Field(default=SelfCollisionConfig(), description="null: not looked at")

    @model_validator(mode="after")
    def _names_agree(self) -> RobotConfig:
        known = set(self.joints)
        for field, names in (("joint_limits", self.joint_limits), ("home", self.home)):
            if set(names) != known:
                raise ValueError(f"{field}: expected exactly the joints {self.joints}, found {sorted(names)}")
        commanded = [j for c in self.controllers for j in c.joints]
        if sorted(commanded) != sorted(self.joints):
            raise ValueError(f"controllers: expected each joint once, found {commanded}")
        boxes = [box.name for box in self.keep_out]
        if len(set(boxes)) < len(boxes):
            raise ValueError(f"keep_out: expected different names, found {boxes}")
        return self


def planar_space(robot: RobotConfig) -> PlanarVelocityConfig:
    """The robot's planar action space, which simulation, planning, training and evaluation need.

    Raises InputError where the robot has another one.
    """
    return _space(robot, "planar_velocity")


def pose_space(robot: RobotConfig) -> PoseDeltaConfig:
    """The robot's action space of poses. Raises InputError where the robot has another one."""
    return _space(robot, "pose_delta")


def _space(robot: RobotConfig, wanted: str) -> PlanarVelocityConfig | PoseDeltaConfig:
    if robot.action_space.type != wanted:
        raise InputError(f"robot {robot.name}: expected the action space {wanted}, found {robot.action_space.type}")
    return robot.action_space


def load_robot(name_or_path: str | Path) -> RobotConfig:
    """The configuration of a robot by name (config/robots/<name>.yaml) or by file.

    Raises InputError that names the file, the field, what was expected and found.
    """
    path = resolve_robot(name_or_path)
    try:
        return RobotConfig.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise InputError(f"robot {path}: expected YAML, found {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        raise InputError(f"robot {path}: {first_problem(error)}") from None
