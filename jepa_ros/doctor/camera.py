"""The live camera beside the training camera: encoding, size, field of view, and whether there is a picture at all."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor.finding import Finding, error, fine, listed, warning
from jepa_ros.doctor.observations import Camera, Intrinsics, Job, Seen
from jepa_ros.world_model.config import CameraReference

FROZEN = 1.0  # s, the camera node's frozen_after
DARK, BRIGHT, FLAT = 8.0, 247.0, 2.0  # of 255: mean, mean, standard deviation
VIEW = (0.05, 0.20)  # share by which the field of view may differ: warning, error
CENTRE = 0.05  # share of the square's side by which the optical axis may lie elsewhere
SIMULATORS = ("simulator", "ros_gz_bridge", "ros_gz_image", "parameter_bridge", "image_bridge")


def check(seen: Seen, job: Job) -> list[Finding]:
    """Every camera that was heard."""
    found = []
    for number, camera in enumerate(seen.cameras):
        if not len(camera.stream):
            continue
        publishers = seen.topic(camera.topic).publishers
        if len(publishers) > 1:
            who = listed(p.node for p in publishers)
            advice = "Two cameras on one topic: remap one of them. All else said of this topic is a mixture."
            found.append(error("cameras", camera.topic, "one camera", f"{len(publishers)}: {who}", advice))
            continue
        found += _picture(camera, seen) or [fine("picture", f"pictures of {camera.topic}", _described(camera))]
        if number == 0 and camera.picture is not None and job.model.camera is not None:
            found.append(_optics(camera, job.model.camera))
    return found


def _described(camera: Camera) -> str:
    width, height = camera.sizes[-1]
    return f"{width} x {height} {camera.encodings[-1]}"


def _picture(camera: Camera, seen: Seen) -> list[Finding]:
    """What is wrong with the pictures; nothing where they can be used."""
    what = f"pictures of {camera.topic}"
    if camera.picture is None:
        what_for = "pictures that can be read"
        advice = "Set the driver to rgb8, bgr8 or mono8, or to JPEG or PNG pictures."
        return [error("encoding", what, what_for, camera.problem or "none", advice)]
    if len(camera.sizes) > 1 or len(camera.encodings) > 1:
        found = listed([f"{w} x {h}" for w, h in camera.sizes] + camera.encodings)
        advice = "Two cameras on one topic, or one that changes while it runs."
        return [error("cameras", what, "one size and encoding", found, advice)]
    mean, spread = float(camera.picture.mean()), float(camera.picture.std())
    if spread < FLAT or mean < DARK or mean > BRIGHT:
        looks = "dark" if mean < DARK else "white" if mean > BRIGHT else "one flat colour"
        found = f"{looks} (mean {mean:.0f}, standard deviation {spread:.1f} of 255)"
        return [error("dark", what, "a picture of the arm", found, "Take off the lens cap; see light and exposure.")]
    if camera.same_s >= _frozen_after(camera, seen):
        advice = "The camera hangs: start its driver again. (A simulator at rest: frozen_after 0 for the camera node.)"
        found = f"the same pixels for {camera.same_s:.1f} s"
        return [error("frozen", what, "pictures that differ by the sensor's noise", found, advice)]
    return []


def _frozen_after(camera: Camera, seen: Seen) -> float:
    """s; simulated pictures have no noise, and our camera node is then told not to look."""
    own = [
        node.frozen_after
        for name, node in seen.nodes.items()
        if name.endswith("/camera") and node.frozen_after is not None
    ]
    if own:
        return own[0] or float("inf")
    simulated = any(p.name in SIMULATORS for p in seen.topic(camera.topic).publishers) or seen.clock_moves
    return float("inf") if simulated else min(FROZEN, 0.6 * seen.seconds)


def square(of: Intrinsics | CameraReference) -> tuple[float, float, float]:
    """What the model sees of a camera, the centred square: tangent of its field of view, and where the optical axis is
    from its middle, in sides."""
    side = min(of.width, of.height)
    view = side / (0.5 * (of.fx + of.fy))
    return view, (of.cx - (of.width - 1) / 2) / side, (of.cy - (of.height - 1) / 2) / side


def _optics(camera: Camera, trained: CameraReference) -> Finding:
    what, live = f"optics of {camera.topic}", camera.intrinsics
    wanted = f"the training camera's ({trained.width} x {trained.height}, f {trained.fx:.0f} px)"
    if live is None or live.fx <= 0 or live.fy <= 0 or min(live.width, live.height) <= 0:
        found = "no camera_info beside the pictures" if live is None else "a camera_info that is not calibrated (f = 0)"
        return warning("intrinsics", what, wanted, found, "Calibrate the camera, or compare the overlay by eye.")
    if (live.width, live.height) not in camera.sizes:
        size = f"{live.width} x {live.height} in camera_info, {_described(camera)} in the pictures"
        return error("intrinsics", what, "a camera_info of these pictures", size, "See that both come from one driver.")
    (view, x, y), (view0, x0, y0) = square(live), square(trained)
    off, aside = abs(view / view0 - 1.0), float(np.hypot(x - x0, y - y0))
    shown = f"a field of view {100 * (view / view0 - 1):+.0f} % and its axis {100 * aside:.0f} % of the side elsewhere"
    if off <= VIEW[0] and aside <= CENTRE:
        return fine("intrinsics", what, "the model sees as wide a view as in training")
    found = f"{live.width} x {live.height}, f {live.fx:.0f} px: {shown}"
    advice = "Crop or zoom until the centred square shows the same, or train on this camera."
    return (error if off > VIEW[1] else warning)("intrinsics", what, wanted, found, advice)
