"""Robot file draft from a URDF (`jepa_ros robot new`); what a URDF lacks is a TODO, which `robot check` reports."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from jepa_ros.errors import InputError
from jepa_ros.robot.files.kinematic_tree import ArmChain, KinematicTree
from jepa_ros.robot.urdf import Joint

DEFAULT_VELOCITY = 0.5  # rad/s, where the URDF has none
DEFAULT_ACCELERATION, DEFAULT_JERK = 2.0, 40.0  # rad/s², rad/s³: low for any arm
POSITION_MARGIN = 0.05  # rad


def draft_robot_yaml(urdf: str, name: str | None = None, base: str | None = None, tool: str | None = None) -> str:
    """Return the text of a robot's YAML. base, tool: links; None for the root and the end of the longest chain.

    Raises InputError where the URDF has no such arm, or a joint without a range.
    """
    tree = KinematicTree(urdf)
    arm, joints = tree.arm(base, tool), tree.description.joints
    name = name or re.sub(r"\W+", "_", tree.description.name.lower()).strip("_") or "robot"
    home = {joint: _home(joints[joint]) for joint in arm.joints}
    return "\n".join(
        [
            f"# Drafted by `jepa_ros robot new` from the URDF of {tree.description.name or 'a robot'}.",
            "# Resolve and delete the TODOs, review the rest: jepa_ros robot check THIS_FILE --urdf URDF",
            f"name: {name}",
            *_names("joints", arm.joints),
            f"base_frame: {arm.base}",
            f"tool_frame: {arm.tool}",
            *_controllers(arm),
            "action_space:  # or planar_velocity, see config/robots/ur5e.yaml for its keys",
            "  type: pose_delta",
            "  max_translation: 0.01  # m per control tick",
            "  max_rotation: 0.05  # rad per control tick",
            "  # For planning: max_acceleration (m/s^2) and workspace ([[x, y, z], [x, y, z]], corners in m)",
            *_limits([joints[joint] for joint in arm.joints]),
            f"position_margin: {POSITION_MARGIN}",
            "# TODO home: a posture clear of the table and not stretched out; drafted as 0 or the middle of the range.",
            "home:",
            *(f"  {joint}: {value:g}" for joint, value in home.items()),
            *_names("gripper", arm.gripper[:1]),
            *(["# gripper_controller: {interface, topic, open}, see docs/how_to/robots.md"] if arm.gripper else []),
            "camera: {frame_id: camera_color_optical_frame, topic: image}  # TODO the camera's tf frame",
            "",
        ]
    )


def run_robot_new(
    urdf: Path, name: str | None = None, out: Path | None = None, base: str | None = None, tool: str | None = None
) -> int:
    """Run `jepa_ros robot new`. Raises InputError for invalid input, and where the file exists."""
    text = draft_robot_yaml(read_urdf(urdf), name, base, tool)
    named = text.partition("\nname: ")[2].partition("\n")[0]
    out = out or Path(f"{named}.yaml")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"--out {out}: cannot create the file: {error.strerror}") from None
    print(f"{out}: {text.count('TODO') - 1} things to fill in; then jepa_ros robot check {out} --urdf {urdf}")
    return 0


def read_urdf(path: Path) -> str:
    """Return the text of a URDF file. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"urdf {path}: expected a URDF file, found {error}") from None
    if "<xacro:" in re.sub("<!--.*?-->", "", text, flags=re.DOTALL):
        raise InputError(f"urdf {path}: expected a URDF, found xacro: run `xacro {path.name} > robot.urdf` first")
    return text


def _names(key: str, names: Sequence[str]) -> list[str]:
    return [f"{key}:", *(f"  - {name}" for name in names)] if names else [f"{key}: []"]


def _controllers(arm: ArmChain) -> list[str]:
    return [
        "controllers:",
        "  # TODO name and type: `ros2 control list_controllers`; one list of joints for each command interface.",
        "  - name: joint_trajectory_controller",
        "    type: joint_trajectory_controller/JointTrajectoryController",
        f"    joints: [{', '.join(arm.joints)}]",
    ]


def _limits(joints: Sequence[Joint]) -> list[str]:
    lines = [
        "# TODO max_acceleration, max_jerk (rad and s): not in URDF; these are low guesses.",
        "joint_limits:",
    ]
    for joint in joints:
        known = bool(joint.velocity)
        velocity = f"{joint.velocity if known else DEFAULT_VELOCITY:g}"
        note = "" if known else "  # TODO max_velocity: not in the URDF"
        lines += [f"  {joint.name}:{note}", f"    {{max_velocity: {velocity}, {_rest()}}}"]
    return lines


def _rest() -> str:
    acceleration = f"has_acceleration_limits: true, max_acceleration: {DEFAULT_ACCELERATION}"
    return f"{acceleration}, has_jerk_limits: true, max_jerk: {DEFAULT_JERK}"


def _home(joint: Joint) -> float:
    """Return zero where it is in the joint's range, with twice the margin, else the middle of the range."""
    low, high = joint.lower + 2 * POSITION_MARGIN, joint.upper - 2 * POSITION_MARGIN
    if not low < high:
        raise InputError(f"joint {joint.name}: expected a range of limits, found {joint.lower:g} to {joint.upper:g}")
    return 0.0 if low <= 0.0 <= high or math.isinf(low) else round(0.5 * (joint.lower + joint.upper), 4)
