"""Checks of the cameras: TF frames, the camera's pose, images, and the field of view."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import CameraObservations, Intrinsics, Observations, RobotSetup
from jepa_ros.robot.transforms import TransformTree, rotation_matrix
from jepa_ros.world_model.config import CameraReference

MOVED_WARNING, MOVED_ERROR = (0.02, 2.0), (0.10, 10.0)
"""m and degrees of difference from the training camera's pose."""
MOVED_ADVICE = (
    "Put the camera there, train on data from where it is, or read how much it matters (docs/how_to/doctor.md)."
)
FROZEN_AFTER = 1.0  # s, the camera node's default
DARK_MEAN, BRIGHT_MEAN, FLAT_STD = 8.0, 247.0, 2.0  # of 255
VIEW_DIFFERENCE = (0.05, 0.20)  # share of the field of view: warning, error
AXIS_OFFSET = 0.05  # share of the square's side: warning
SIMULATORS = ("simulator", "ros_gz_bridge", "ros_gz_image", "parameter_bridge", "image_bridge")


# -- frames ------------------------------------------------------------------------------------------------------------


def check_frames(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check base and tool, then each camera's frame."""
    base, tool = setup.robot.base_frame, setup.robot.tool_frame
    if not observed.transforms:
        advice = "Start robot_state_publisher, and a static transform for the camera."
        yield warning(Code.TF_MISSING, "/tf", f"frames {base} and {tool}", "no transforms", advice)
        return
    tree = TransformTree()
    for child, (parent, position, quaternion) in observed.transforms.items():
        tree.set(child, parent, position, quaternion)
    if tree.pose(tool, base) is None:
        known = {*observed.transforms, *(parent for parent, _, _ in observed.transforms.values())}
        missing = [name for name in (base, tool) if name not in known]
        there = f"{join_names(missing)} missing" if missing else "two trees that are not connected"
        advice = "Start robot_state_publisher, or correct base_frame and tool_frame in the robot's YAML."
        yield warning(Code.TF_DISCONNECTED, f"TF from {base} to {tool}", "a connection", there, advice)
    else:
        yield ok("tf", "TF", f"{tool} is known in {base}")
    for number, camera in enumerate(observed.cameras):
        if len(camera.times):
            yield from _check_camera_frame(tree, camera, number, setup)


def _check_camera_frame(
    tree: TransformTree, camera: CameraObservations, number: int, setup: RobotSetup
) -> Iterator[Finding]:
    robot, frame, what = setup.robot, camera.times.frame_ids[-1], f"frame of {camera.topic}"
    is_other = number == 0 and frame != robot.camera.frame_id
    if is_other:
        advice = "Correct camera.frame_id in the robot's YAML, or the driver's frame."
        yield warning(Code.CAMERA_FRAME, what, robot.camera.frame_id, frame or "an empty name", advice)
    pose = tree.pose(frame, robot.base_frame)
    if pose is not None:
        if number == 0 and setup.model.camera is not None:
            yield _check_pose(f"pose of {camera.topic}", *pose, setup.model.camera)
    elif not is_other:
        wanted, advice = (
            f"TF from {robot.base_frame} to {frame}",
            "Publish the camera's pose (static_transform_publisher).",
        )
        yield warning(Code.CAMERA_FRAME_UNKNOWN, what, wanted, "none", advice)


def _check_pose(what: str, position: np.ndarray, rotation: np.ndarray, trained: CameraReference) -> Finding:
    moved = float(np.linalg.norm(position - np.array(trained.position)))
    between = rotation @ rotation_matrix(trained.orientation).T
    turned = float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1.0, 1.0))))
    shown = f"{100 * moved:.1f} cm and {turned:.1f}° away"
    if moved <= MOVED_WARNING[0] and turned <= MOVED_WARNING[1]:
        return ok("camera_pose", what, f"{shown} from the training camera's")
    expected = f"the training camera's, {np.round(trained.position, 3).tolist()} m"
    is_far = moved > MOVED_ERROR[0] or turned > MOVED_ERROR[1]
    return (error if is_far else warning)(Code.CAMERA_MOVED, what, expected, shown, MOVED_ADVICE)


# -- images ------------------------------------------------------------------------------------------------------------


def check_images(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check every camera that images were received from: decodable, of one camera, not dark or frozen."""
    for number, camera in enumerate(observed.cameras):
        if not len(camera.times):
            continue
        publishers = observed.topic(camera.topic).publishers
        if len(publishers) > 1:
            who = join_names(p.node for p in publishers)
            advice = "Two cameras on one topic: remap one of them. Other findings on this topic mix both."
            yield error(Code.CAMERAS_SEVERAL, camera.topic, "one camera", f"{len(publishers)}: {who}", advice)
            continue
        yield _check_image(camera, observed)
        if number == 0 and camera.image is not None and setup.model.camera is not None:
            yield _check_optics(camera, setup.model.camera)


def _describe(camera: CameraObservations) -> str:
    width, height = camera.sizes[-1]
    return f"{width} x {height} {camera.encodings[-1]}"


def _check_image(camera: CameraObservations, observed: Observations) -> Finding:
    what = f"images of {camera.topic}"
    if camera.image is None:
        advice = "Set the driver to rgb8, bgr8 or mono8, or to compressed JPEG or PNG images."
        return error(Code.IMAGE_UNDECODABLE, what, "images that can be decoded", camera.problem or "none", advice)
    if len(camera.sizes) > 1 or len(camera.encodings) > 1:
        found = join_names([f"{w} x {h}" for w, h in camera.sizes] + camera.encodings)
        advice = "Two cameras on one topic, or one whose settings change while it runs."
        return error(Code.CAMERAS_SEVERAL, what, "one size and encoding", found, advice)
    mean, spread = float(camera.image.mean()), float(camera.image.std())
    if spread < FLAT_STD or mean < DARK_MEAN or mean > BRIGHT_MEAN:
        looks = "dark" if mean < DARK_MEAN else "white" if mean > BRIGHT_MEAN else "one flat colour"
        found = f"{looks} (mean {mean:.0f}, standard deviation {spread:.1f} of 255)"
        return error(
            Code.IMAGE_FLAT, what, "an image of the arm", found, "Take off the lens cap; check light and exposure."
        )
    if camera.frozen_s >= _frozen_after(camera, observed):
        advice = (
            "The camera hangs: restart its driver. (For a simulator at rest set frozen_after 0 at the camera node.)"
        )
        found = f"the same pixels for {camera.frozen_s:.1f} s"
        return error(Code.IMAGE_FROZEN, what, "images that differ by sensor noise", found, advice)
    return ok("image", what, _describe(camera))


def _frozen_after(camera: CameraObservations, observed: Observations) -> float:
    """Return s of equal images that count as frozen; infinite for simulated images, which have no noise."""
    nodes = [node.frozen_after for name, node in observed.nodes.items() if name.endswith("/camera")]
    if own := [after for after in nodes if after is not None]:
        return own[0] or math.inf
    simulated = any(p.name in SIMULATORS for p in observed.topic(camera.topic).publishers) or observed.clock_moves
    return math.inf if simulated else min(FROZEN_AFTER, 0.6 * observed.seconds)


def square_view(of: Intrinsics | CameraReference) -> tuple[float, float, float]:
    """Return the view of the centred square, which is the model's input: tangent of its field of view, and the offset
    of the optical axis from its centre, in sides."""
    side = min(of.width, of.height)
    view = side / (0.5 * (of.fx + of.fy))
    return view, (of.cx - (of.width - 1) / 2) / side, (of.cy - (of.height - 1) / 2) / side


def _check_optics(camera: CameraObservations, trained: CameraReference) -> Finding:
    what, live = f"optics of {camera.topic}", camera.intrinsics
    wanted = f"the training camera's ({trained.width} x {trained.height}, f {trained.fx:.0f} px)"
    if live is None or live.fx <= 0 or live.fy <= 0 or min(live.width, live.height) <= 0:
        found = "no camera_info" if live is None else "a camera_info that is not calibrated (f = 0)"
        advice = "Calibrate the camera, or check the overlay by eye."
        return warning(Code.INTRINSICS_MISSING, what, wanted, found, advice)
    if (live.width, live.height) not in camera.sizes:
        size = f"{live.width} x {live.height} in camera_info, {_describe(camera)} images"
        advice = "Check that both come from one driver."
        return error(Code.INTRINSICS_SIZE, what, "a camera_info of these images", size, advice)
    (view, x, y), (view0, x0, y0) = square_view(live), square_view(trained)
    off, aside = abs(view / view0 - 1.0), float(np.hypot(x - x0, y - y0))
    shown = f"field of view {100 * (view / view0 - 1):+.0f} %, optical axis off by {100 * aside:.0f} % of the side"
    if off <= VIEW_DIFFERENCE[0] and aside <= AXIS_OFFSET:
        return ok("intrinsics", what, "the field of view is that of training")
    found = f"{live.width} x {live.height}, f {live.fx:.0f} px: {shown}"
    advice = "Crop or zoom until the centred square shows the same, or train on this camera."
    return (error if off > VIEW_DIFFERENCE[1] else warning)(Code.INTRINSICS_VIEW, what, wanted, found, advice)
