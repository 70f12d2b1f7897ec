"""Check of TF: base, tool and camera, and the camera's pose against the training camera's."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import CameraObservations, Observations, RobotSetup
from jepa_ros.robot.transforms import TransformTree, rotation_matrix
from jepa_ros.world_model.config import CameraReference

MOVED_WARNING, MOVED_ERROR = (0.02, 2.0), (0.10, 10.0)
"""m and degrees of difference from the training camera's pose."""
MOVED_ADVICE = (
    "Put the camera there, train on data from where it is, or read how much it matters (docs/how_to/doctor.md)."
)


def build_tree(observed: Observations) -> TransformTree:
    """Return the transforms that were received."""
    made = TransformTree()
    for child, (parent, position, quaternion) in observed.transforms.items():
        made.set(child, parent, position, quaternion)
    return made


def check(observed: Observations, setup: RobotSetup) -> list[Finding]:
    """Check base and tool, then each camera's frame."""
    robot = setup.robot
    if not observed.transforms:
        advice = "Start robot_state_publisher, and a static transform for the camera."
        wanted = f"frames {robot.base_frame} and {robot.tool_frame}"
        return [warning(Code.TF_MISSING, "/tf", wanted, "no transforms", advice)]
    made, found = build_tree(observed), []
    if made.pose(robot.tool_frame, robot.base_frame) is None:
        known = {*observed.transforms, *(parent for parent, _, _ in observed.transforms.values())}
        missing = [name for name in (robot.base_frame, robot.tool_frame) if name not in known]
        there = f"{join_names(missing)} missing" if missing else "two trees that are not connected"
        advice = "Start robot_state_publisher, or correct base_frame and tool_frame in the robot's YAML."
        what = f"{robot.base_frame} to {robot.tool_frame}"
        found.append(warning(Code.TF_DISCONNECTED, f"TF from {what}", "a connection", there, advice))
    else:
        found.append(ok("tf", "TF", f"{robot.tool_frame} is known in {robot.base_frame}"))
    for number, camera in enumerate(observed.cameras):
        if len(camera.times):
            found += _check_camera(made, camera, number, setup)
    return found


def _check_camera(made: TransformTree, camera: CameraObservations, number: int, setup: RobotSetup) -> list[Finding]:
    robot, frame = setup.robot, camera.times.frame_ids[-1]
    what, found = f"frame of {camera.topic}", []
    if number == 0 and frame != robot.camera.frame_id:
        advice = "Correct camera.frame_id in the robot's YAML, or the driver's frame."
        found.append(warning(Code.CAMERA_FRAME, what, robot.camera.frame_id, frame or "an empty name", advice))
    pose = made.pose(frame, robot.base_frame)
    if pose is None:
        if not found:
            advice = "Publish the camera's pose (static_transform_publisher)."
            found.append(
                warning(Code.CAMERA_FRAME_UNKNOWN, what, f"TF from {robot.base_frame} to {frame}", "none", advice)
            )
        return found
    if number == 0 and setup.model.camera is not None:
        found.append(_check_pose(f"pose of {camera.topic}", *pose, setup.model.camera))
    return found


def _check_pose(what: str, position: np.ndarray, rotation: np.ndarray, trained: CameraReference) -> Finding:
    moved = float(np.linalg.norm(position - np.array(trained.position)))
    between = rotation @ rotation_matrix(np.array(trained.orientation)).T
    turned = float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1.0, 1.0))))
    shown = f"{100 * moved:.1f} cm and {turned:.1f}° away"
    if moved <= MOVED_WARNING[0] and turned <= MOVED_WARNING[1]:
        return ok("camera_pose", what, f"{shown} from the training camera's")
    expected = f"the training camera's, {np.round(trained.position, 3).tolist()} m"
    is_far = moved > MOVED_ERROR[0] or turned > MOVED_ERROR[1]
    return (error if is_far else warning)(Code.CAMERA_MOVED, what, expected, shown, MOVED_ADVICE)
