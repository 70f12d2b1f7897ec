"""Robot configuration: config/robots/<name>.yaml, what the stack needs beyond the URDF."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jepa_ros.errors import InputError, first_problem
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.camera_rotation import MAX_TILT_DEG, tilt_degrees
from jepa_ros.text_files import read_yaml


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Commands(NamedTuple):
    """Command interface of a controller type: its name, the topic below the controller's name, the message type
    (package/msg/Name)."""

    interface: str
    topic: str
    message: str


_POSITIONS = _Commands("forward_position", "commands", "std_msgs/msg/Float64MultiArray")
# Servo's topics are the defaults of its parameters: moveit_servo/config/servo_parameters.yaml (moveit2, branch jazzy).
_COMMANDS = {
    "joint_trajectory_controller/JointTrajectoryController": _Commands(
        "joint_trajectory", "joint_trajectory", "trajectory_msgs/msg/JointTrajectory"
    ),
    "forward_command_controller/ForwardCommandController": _POSITIONS,
    "position_controllers/JointGroupPositionController": _POSITIONS,
    "moveit_servo/TwistStamped": _Commands("servo_twist", "delta_twist_cmds", "geometry_msgs/msg/TwistStamped"),
    "moveit_servo/JointJog": _Commands("servo_joint_jog", "delta_joint_cmds", "control_msgs/msg/JointJog"),
}
COMMAND_INTERFACES = tuple(dict.fromkeys(commands.interface for commands in _COMMANDS.values()))


class ControllerConfig(_Strict):
    """A ros2_control controller, or a MoveIt Servo node, that the gate may command."""

    name: str
    type: Literal[
        "joint_trajectory_controller/JointTrajectoryController",
        "forward_command_controller/ForwardCommandController",
        "position_controllers/JointGroupPositionController",
        "moveit_servo/TwistStamped",
        "moveit_servo/JointJog",
    ]
    joints: list[str]

    @property
    def interface(self) -> str:
        """One of COMMAND_INTERFACES, by its type."""
        return _COMMANDS[self.type].interface

    @property
    def message_type(self) -> str:
        """Type of its commands, package/msg/Name."""
        return _COMMANDS[self.type].message

    @property
    def command_topic(self) -> str:
        """Topic of its commands, relative to the namespace."""
        return f"{self.name}/{_COMMANDS[self.type].topic}"


class PlanarVelocityConfig(_Strict):
    """Planar velocity of the tool at a fixed height; see robot/motion/action_space.py."""

    type: Literal["planar_velocity"]
    max_speed: float = Field(gt=0, le=2.0, description="m/s, speed of a velocity component of 1")
    max_acceleration: float = Field(gt=0, le=20.0, description="m/s^2, mean over a control tick")
    height: float = Field(description="m, height of the tool frame above the origin of the base frame")
    workspace: list[tuple[float, float]] = Field(min_length=3, description="convex polygon, counter-clockwise, m")

    @property
    def dimension(self) -> int:
        """Number of values of an action."""
        return 2


class ToolVelocityConfig(_Strict):
    """Velocity of the tool in space, optionally with yaw; see robot/motion/velocity_space.py."""

    type: Literal["tool_velocity"]
    max_speed: float = Field(gt=0, le=2.0, description="m/s, speed of a velocity component of 1")
    max_acceleration: float = Field(
        gt=0, le=20.0, description="m/s^2, mean over a control tick; yaw reaches its full speed in the same time"
    )
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]] = Field(
        description="lowest and highest corner of the tool's workspace, m in the base frame"
    )
    max_yaw_speed: float | None = Field(
        default=None, gt=0, le=6.0, description="rad/s of a yaw velocity of 1; null: the orientation is held"
    )
    yaw: tuple[float, float] | None = Field(
        default=None, description="lowest and highest yaw, rad about the base frame's z from the orientation at home"
    )

    @property
    def dimension(self) -> int:
        """Number of values of an action."""
        return 3 if self.max_yaw_speed is None else 4

    @model_validator(mode="after")
    def _values_agree(self) -> ToolVelocityConfig:
        _check_corners("workspace", *self.workspace)
        if (self.max_yaw_speed is None) != (self.yaw is None):
            there, missing = ("yaw", "max_yaw_speed") if self.max_yaw_speed is None else ("max_yaw_speed", "yaw")
            raise ValueError(f"{missing}: expected a value beside {there}, found none")
        if self.yaw is not None and not -math.pi < self.yaw[0] < self.yaw[1] < math.pi:
            raise ValueError(f"yaw: expected low < high between -π and π rad, found {self.yaw}")
        return self


VelocityConfig = PlanarVelocityConfig | ToolVelocityConfig
VELOCITY_SPACES = ("planar_velocity", "tool_velocity")
"""Types of VelocityConfig."""


class PoseDeltaConfig(_Strict):
    """Change of the tool's pose in a control tick; see robot/motion/action_space.py.

    These limits are for planning; the gate checks joint limits and workspace. Where poses are only recorded or
    predicted, max_acceleration and workspace may be left out.
    """

    type: Literal["pose_delta"]
    max_translation: float = Field(gt=0, le=0.5, description="m per control tick")
    max_rotation: float = Field(gt=0, le=1.5, description="rad per control tick")
    max_acceleration: float | None = Field(
        default=None, gt=0, le=20.0, description="m/s^2, mean over a control tick; needed for planning"
    )
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]] | None = Field(
        default=None, description="lowest and highest corner of the tool's workspace, m; needed for planning"
    )
    gripper_zero: Literal["lower", "upper"] = Field(
        "lower",
        description="limit of the first gripper joint at which the gripper state is 0; at the other limit it is 1",
    )

    @property
    def dimension(self) -> int:
        """Number of values of an action."""
        return 7

    @property
    def missing(self) -> list[str]:
        """Keys that planning needs and that are not set."""
        return [name for name in ("max_acceleration", "workspace") if getattr(self, name) is None]

    @model_validator(mode="after")
    def _corners_in_order(self) -> PoseDeltaConfig:
        if self.workspace:
            _check_corners("workspace", *self.workspace)
        return self


def _check_corners(name: str, low: tuple[float, ...], high: tuple[float, ...]) -> None:
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise ValueError(f"{name}: expected low < high on every axis, found {low} and {high}")


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
    """The camera that the model was trained with."""

    frame_id: str
    topic: str
    rotation_to_base: tuple[float, float, float, float] | None = Field(
        default=None,
        description="rotation from the axes of the model's actions to the base frame, quaternion xyzw; set by "
        "`calibrate camera`",
    )

    @model_validator(mode="after")
    def _rotation_is_a_unit_quaternion(self) -> CameraConfig:
        length = None if self.rotation_to_base is None else math.hypot(*self.rotation_to_base)
        if length is not None and abs(length - 1.0) > 0.01:
            raise ValueError(f"rotation_to_base: expected a quaternion xyzw of length 1, found length {length:.3g}")
        return self


class GripperControllerConfig(_Strict):
    """The gripper's controller, to which arm_gate forwards the topic `gripper`."""

    interface: Literal["gripper_command", "joint_trajectory", "forward_command"] = Field(
        description="control_msgs/action/GripperCommand, trajectory_msgs/JointTrajectory, std_msgs/Float64MultiArray"
    )
    topic: str = Field(min_length=1, description="topic or action name, relative to the robot's namespace")
    open: Literal["lower", "upper"] = Field(
        "upper", description="limit of the first gripper joint at which the gripper is open"
    )
    max_effort: float = Field(default=10.0, ge=0, description="max_effort of GripperCommand, in the controller's unit")


class BringupConfig(_Strict):
    """The vendor's launch file, included by launch/robot.launch.py with bringup:=true."""

    package: str = Field(min_length=1)
    file: str = Field(min_length=1, description="path in the package's share directory")
    arguments: dict[str, str] = Field(default={}, description="always set")
    mock_arguments: dict[str, str] = Field(default={}, description="set as well with use_mock_hardware:=true")
    interface_arguments: dict[str, dict[str, str]] = Field(
        default={}, description="by command interface: arguments that activate its controllers"
    )
    required: list[str] = Field(default=[], description="arguments that the user must set in bringup_arguments")
    namespace_argument: str | None = Field(default=None, description="argument for the robot's namespace")

    @model_validator(mode="after")
    def _interfaces_are_known(self) -> BringupConfig:
        if unknown := sorted(set(self.interface_arguments) - set(COMMAND_INTERFACES)):
            known = ", ".join(COMMAND_INTERFACES)
            raise ValueError(f"interface_arguments: expected some of {known}, found {unknown[0]}")
        return self


class KeepOutConfig(_Strict):
    """A keep-out box: lowest and highest corner, m in the base frame."""

    name: str = Field(min_length=1)
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @model_validator(mode="after")
    def _corners_in_order(self) -> KeepOutConfig:
        _check_corners(self.name, self.low, self.high)
        return self


class SelfCollisionConfig(_Strict):
    """Self-collision check of the arm; see robot/collision/self_collision.py."""

    margin: float = Field(default=0.02, ge=0, le=0.5, description="minimum distance between two links, m")
    ignore: list[tuple[str, str]] = Field(default=[], description="pairs of links that may touch")


class RobotConfig(_Strict):
    """One arm (one side of a bimanual robot) and its controllers."""

    name: str
    joints: list[str] = Field(min_length=1)
    base_frame: str
    tool_frame: str
    controllers: list[ControllerConfig] = Field(
        min_length=1, description="of every command interface; those of the first one are used by default"
    )
    action_space: PlanarVelocityConfig | ToolVelocityConfig | PoseDeltaConfig = Field(discriminator="type")
    joint_limits: dict[str, JointLimitConfig]
    position_margin: float = Field(ge=0, le=0.5, description="rad kept from every position limit")
    home: dict[str, float] = Field(description="rad, reference posture of inverse kinematics")
    gripper: list[str] = Field(default=[], description="gripper joints, part of the proprioception")
    gripper_controller: GripperControllerConfig | None = None
    bringup: BringupConfig | None = Field(default=None, description="null: the user starts the robot")
    camera: CameraConfig
    keep_out: list[KeepOutConfig] = Field(default=[], description="boxes that the arm is kept out of")
    self_collision: SelfCollisionConfig | None = Field(default=SelfCollisionConfig(), description="null: no check")

    @model_validator(mode="after")
    def _names_agree(self) -> RobotConfig:
        known = set(self.joints)
        for field, names in (("joint_limits", self.joint_limits), ("home", self.home)):
            if set(names) != known:
                raise ValueError(f"{field}: expected exactly the joints {self.joints}, found {sorted(names)}")
        for interface in self.interfaces:
            own = [c for c in self.controllers if c.interface == interface]
            commanded = [j for c in own for j in c.joints]
            if sorted(commanded) != sorted(self.joints):
                raise ValueError(f"controllers: expected each joint once for {interface}, found {commanded}")
            if interface == "servo_twist" and len(own) > 1:
                raise ValueError("controllers: expected one MoveIt Servo (it moves the whole arm), found several")
        turn = self.camera.rotation_to_base
        space = _describe_upright(self.action_space)
        if turn is not None and space and tilt_degrees(turn) > MAX_TILT_DEG:
            raise ValueError(
                f"camera.rotation_to_base: expected a rotation about the base frame's z ({space} allows no "
                f"other), found one that tilts z by {tilt_degrees(turn):.1f}° (at most {MAX_TILT_DEG:g}°)"
            )
        boxes = [box.name for box in self.keep_out]
        if len(set(boxes)) < len(boxes):
            raise ValueError(f"keep_out: expected different names, found {boxes}")
        return self

    @property
    def interfaces(self) -> list[str]:
        """Command interfaces of the controllers, the default first."""
        return list(dict.fromkeys(c.interface for c in self.controllers))

    def with_command_interface(self, interface: str = "") -> RobotConfig:
        """Return the robot with the controllers of one command interface only; empty: the default.

        Raises InputError where the robot has no controller of that interface.
        """
        wanted = interface or self.interfaces[0]
        if wanted not in self.interfaces:
            found = ", ".join(self.interfaces)
            raise InputError(f"command_interface '{wanted}': expected one that robot {self.name} has, found {found}")
        return self.model_copy(update={"controllers": [c for c in self.controllers if c.interface == wanted]})


def _describe_upright(space: PlanarVelocityConfig | ToolVelocityConfig | PoseDeltaConfig) -> str:
    """Describe an action space in which z is the only axis of rotation; empty for one that has all."""
    if space.type == "tool_velocity" and space.max_yaw_speed is not None:
        return "tool_velocity with yaw"
    return space.type if space.type == "planar_velocity" else ""


def require_planar_space(robot: RobotConfig) -> PlanarVelocityConfig:
    """Return the robot's planar_velocity action space. Raises InputError where the robot has another one."""
    if not isinstance(robot.action_space, PlanarVelocityConfig):
        raise _other_space(robot, "planar_velocity")
    return robot.action_space


def require_tool_space(robot: RobotConfig) -> ToolVelocityConfig:
    """Return the robot's tool_velocity action space. Raises InputError where the robot has another one."""
    if not isinstance(robot.action_space, ToolVelocityConfig):
        raise _other_space(robot, "tool_velocity")
    return robot.action_space


def require_velocity_space(robot: RobotConfig) -> VelocityConfig:
    """Return the robot's velocity action space, of either kind, which simulation, training and evaluation need.

    Raises InputError where the robot has another one.
    """
    if not isinstance(robot.action_space, VelocityConfig):
        raise _other_space(robot, " or ".join(VELOCITY_SPACES))
    return robot.action_space


def require_pose_space(robot: RobotConfig) -> PoseDeltaConfig:
    """Return the robot's pose_delta action space. Raises InputError where the robot has another one."""
    if not isinstance(robot.action_space, PoseDeltaConfig):
        raise _other_space(robot, "pose_delta")
    return robot.action_space


def _other_space(robot: RobotConfig, wanted: str) -> InputError:
    found = robot.action_space.type
    return InputError(f"robot {robot.name}: expected the action space {wanted}, found {found}")


def load_robot(name_or_path: str | Path, command_interface: str = "") -> RobotConfig:
    """Return a robot's configuration by name (config/robots/<name>.yaml) or path, for one command interface.

    command_interface: one of COMMAND_INTERFACES; empty: that of the file's first controller. Raises InputError that
    names the file and the field.
    """
    return read_robot(name_or_path).with_command_interface(command_interface)


def read_robot(name_or_path: str | Path) -> RobotConfig:
    """Return a robot's configuration with the controllers of all command interfaces. Raises InputError."""
    path = resolve_robot(name_or_path)
    try:
        return read_robot_file(path)
    except ValidationError as error:
        raise InputError(f"robot {path}: {first_problem(error)}") from None


def read_robot_file(path: Path) -> RobotConfig:
    """Return the configuration in a file; raises pydantic's ValidationError, which lists all invalid fields."""
    return RobotConfig.model_validate(_read(path))


class _OtherArm(BaseModel):
    """A robot file derived from another one by replacing words in names: the second of two arms."""

    model_config = ConfigDict(extra="allow")

    name: str
    same_as: str = Field(min_length=1, description="robot whose file this one is derived from")
    replace: dict[str, str] = Field(min_length=1, description="word in names: its replacement")


def _read(path: Path) -> object:
    """Read a robot's file; one with `same_as` is the other file with words replaced and with its own keys."""
    content = read_yaml(path, "robot")
    if not isinstance(content, dict) or "same_as" not in content:
        return content
    other = _OtherArm.model_validate(content)
    base = read_yaml(_base_file(path, other.same_as), "robot")
    if not isinstance(base, dict) or "same_as" in base:
        raise InputError(f"robot {path}: same_as: expected a robot with a file of its own, found {other.same_as}")
    kept = {key: base[key] for key in ("bringup", "camera") if key in base}  # one for both arms
    own = {key: value for key, value in content.items() if key not in ("same_as", "replace")}
    return _replaced(base, other.replace) | kept | own


def find_base_file(path: Path) -> Path | None:
    """Return the file that a robot's file is derived from by `same_as`; None for a file of its own.

    Raises InputError where the file cannot be read or the other one is not found.
    """
    content = read_yaml(path, "robot")
    same_as = content.get("same_as") if isinstance(content, dict) else None
    return _base_file(path, same_as) if isinstance(same_as, str) and same_as else None


def _base_file(path: Path, same_as: str) -> Path:
    beside = path.with_name(f"{same_as}.yaml")
    return beside if beside.is_file() else resolve_robot(same_as)


def _replaced(value: Any, words: dict[str, str]) -> Any:
    """Replace words in all texts and keys of a value."""
    if isinstance(value, dict):
        return {_replaced(k, words): _replaced(v, words) for k, v in value.items()}
    if isinstance(value, list):
        return [_replaced(v, words) for v in value]
    if isinstance(value, str):
        for word, instead in words.items():
            value = value.replace(word, instead)
    return value
