"""All checks of the observations, in the order in which problems should be resolved."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor import camera, control, fit, frames, graph, joints, times, view
from jepa_ros.doctor.finding import Finding
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import Observations, RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import Checkpoint

UNUSABLE_IMAGES = (
    Code.CAMERAS_SEVERAL,
    Code.IMAGE_UNDECODABLE,
    Code.IMAGE_FLAT,
    Code.IMAGE_FROZEN,
    Code.VIEWS_COUNT,
)
"""Findings after which the model's view of the image is not checked."""
UNUSABLE_JOINTS = ("units", "values", "joints", "range")
"""Checks whose findings make the tool position unreliable."""


def examine(observed: Observations, setup: RobotSetup, checkpoint: Checkpoint | None = None) -> list[Finding]:
    """Return all findings. checkpoint: None if only the model's config is to be checked."""
    if (missing_robot := graph.find_missing_robot(observed, setup)) is not None:
        return [*fit.check(setup), missing_robot]
    found = [
        *fit.check(setup),
        *graph.check(observed, setup),
        *times.check(observed, setup),
        *joints.check(observed, setup),
        *control.check(observed, setup),
        *frames.check(observed, setup),
        *camera.check(observed, setup),
    ]
    if checkpoint is None or any(f.code in UNUSABLE_IMAGES for f in found):
        return found
    images = [c.image for c in observed.cameras]
    if len(images) != len(setup.model.cameras) or any(image is None for image in images):
        return found
    is_tool_known = not any(f.level and f.check in UNUSABLE_JOINTS for f in found)
    seen = view.measure_view(checkpoint, images, tool_position(observed, setup) if is_tool_known else None)
    return [*found, *view.check(seen, observed.cameras[0].topic)]


def joint_positions(observed: Observations, setup: RobotSetup) -> np.ndarray | None:
    """Return (J,) rad of the arm's joints from the newest message that has them all; None without one."""
    for m in reversed(observed.joint_messages):
        if set(setup.robot.joints) <= set(m.names) and len(m.positions) == len(m.names):
            found = np.array([m.positions[m.names.index(j)] for j in setup.robot.joints])
            if np.isfinite(found).all():
                return found
    return None


def tool_position(observed: Observations, setup: RobotSetup) -> np.ndarray | None:
    """Return (3,) m in the base frame from joints and description; None if these are missing or invalid."""
    q = joint_positions(observed, setup)
    if q is None or observed.description is None:
        return None
    from jepa_ros.robot.motion.kinematics import Kinematics

    robot = setup.robot
    try:
        return Kinematics(observed.description, robot.joints, robot.tool_frame, robot.base_frame).forward(q)[0]
    except InputError:  # reported by another check
        return None
