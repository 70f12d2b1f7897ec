"""TF: base, tool and camera, and whether the camera stands where the training camera stood."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor.finding import Finding, error, fine, listed, warning
from jepa_ros.doctor.observations import Camera, Job, Seen
from jepa_ros.robot.transforms import TransformTree, rotation_matrix
from jepa_ros.world_model.config import CameraReference

NEAR, FAR = (0.02, 2.0), (0.10, 10.0)
"""m and degrees of difference from the training camera's pose that are a warning, and an error."""
SENSITIVE = "Put the camera there, train on data from where it is, or see how much it matters (docs/how_to/doctor.md)."


def tree(seen: Seen) -> TransformTree:
    """The transforms that were heard."""
    made = TransformTree()
    for child, (parent, position, quaternion) in seen.transforms.items():
        made.set(child, parent, position, quaternion)
    return made


def check(seen: Seen, job: Job) -> list[Finding]:
    """Base and tool, then each camera's frame."""
    robot = job.robot
    if not seen.transforms:
        advice = "Start robot_state_publisher, and a static transform for the camera."
        return [warning("tf", "/tf", f"frames {robot.base_frame} and {robot.tool_frame}", "no transforms", advice)]
    made, found = tree(seen), []
    if made.pose(robot.tool_frame, robot.base_frame) is None:
        known = {*seen.transforms, *(parent for parent, _, _ in seen.transforms.values())}
        missing = [name for name in (robot.base_frame, robot.tool_frame) if name not in known]
        there = f"{listed(missing)} missing" if missing else "two trees that nothing connects"
        advice = "Start robot_state_publisher, or correct base_frame and tool_frame in the robot's YAML."
        what = f"{robot.base_frame} to {robot.tool_frame}"
        found.append(warning("tf", f"TF from {what}", "a way between them", there, advice))
    else:
        found.append(fine("tf", "TF", f"{robot.tool_frame} is known in {robot.base_frame}"))
    for number, camera in enumerate(seen.cameras):
        if len(camera.stream):
            found += _camera(made, camera, number, job)
    return found


def _camera(made: TransformTree, camera: Camera, number: int, job: Job) -> list[Finding]:
    robot, frame = job.robot, camera.stream.frame_ids[-1]
    what, found = f"frame of {camera.topic}", []
    if number == 0 and frame != robot.camera.frame_id:
        advice = "Correct camera.frame_id in the robot's YAML, or the driver's frame."
        found.append(warning("camera_frame", what, robot.camera.frame_id, frame or "an empty name", advice))
    pose = made.pose(frame, robot.base_frame)
    if pose is None:
        if not found:
            advice = "Publish where the camera stands (static_transform_publisher)."
            found.append(warning("camera_frame", what, f"TF from {robot.base_frame} to {frame}", "none", advice))
        return found
    if number == 0 and job.model.camera is not None:
        found.append(_place(f"place of {camera.topic}", *pose, job.model.camera))
    return found


def _place(what: str, position: np.ndarray, rotation: np.ndarray, trained: CameraReference) -> Finding:
    moved = float(np.linalg.norm(position - np.array(trained.position)))
    between = rotation @ rotation_matrix(np.array(trained.orientation)).T
    turned = float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1.0, 1.0))))
    shown = f"{100 * moved:.1f} cm and {turned:.1f}° away"
    if moved <= NEAR[0] and turned <= NEAR[1]:
        return fine("camera_pose", what, f"{shown} from the training camera's")
    expected = f"the training camera's, {np.round(trained.position, 3).tolist()} m"
    far = moved > FAR[0] or turned > FAR[1]
    return (error if far else warning)("camera_pose", what, expected, shown, SENSITIVE)
