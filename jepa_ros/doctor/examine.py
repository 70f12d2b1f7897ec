"""All checks of the observations, in the order in which problems should be resolved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jepa_ros.doctor.answers import check_answers
from jepa_ros.doctor.arm import check_joints
from jepa_ros.doctor.camera import check_frames, check_images
from jepa_ros.doctor.controllers import check_controllers
from jepa_ros.doctor.finding import Finding
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.model import check_fit, check_view, measure_view
from jepa_ros.doctor.observations import Observations, RobotSetup
from jepa_ros.doctor.topics import check_times, check_topics, find_missing_robot
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.world_model.checkpoint import Checkpoint

UNUSABLE_IMAGES = (
    Code.CAMERAS_SEVERAL,
    Code.IMAGE_UNDECODABLE,
    Code.IMAGE_FLAT,
    Code.IMAGE_FROZEN,
    Code.VIEWS_COUNT,
)
"""Findings after which the model's view of the image is not checked."""
UNUSABLE_JOINTS = ("units", "values", "joints", "joint_sources", "range")
"""Checks whose findings make the tool position unreliable."""


def examine(observed: Observations, setup: RobotSetup, checkpoint: Checkpoint | None = None) -> list[Finding]:
    """Return all findings. checkpoint: None if only the model's config is to be checked."""
    found = list(check_fit(setup))
    if (missing_robot := find_missing_robot(observed, setup)) is not None:
        return [*found, missing_robot]
    checks = (check_topics, check_times, check_joints, check_controllers, check_answers, check_frames, check_images)
    for check in checks:
        found += check(observed, setup)
    if checkpoint is None or any(f.code in UNUSABLE_IMAGES for f in found):
        return found
    images = [c.image for c in observed.cameras if c.image is not None]
    if not len(images) == len(observed.cameras) == len(setup.model.cameras):
        return found
    tool = None
    if not any(f.level and f.check in UNUSABLE_JOINTS for f in found):
        tool = frame_positions(observed, setup, [setup.robot.tool_frame])
    view = measure_view(checkpoint, images, None if tool is None else tool[0])
    return [*found, *check_view(view, observed.cameras[0].topic)]


def joint_positions(observed: Observations, setup: RobotSetup) -> np.ndarray | None:
    """Return (J,) rad of the arm's joints from the newest message that has them all; None without one."""
    for m in reversed(observed.joint_messages):
        if set(setup.robot.joints) <= set(m.names) and len(m.positions) == len(m.names):
            found = np.array([m.positions[m.names.index(j)] for j in setup.robot.joints])
            if np.isfinite(found).all():
                return found
    return None


def frame_positions(observed: Observations, setup: RobotSetup, frames: Sequence[str]) -> np.ndarray | None:
    """Return the origins (N, 3) of frames, links or joints, in m in the base frame, from joints and description; None
    if these are missing or invalid."""
    q, robot = joint_positions(observed, setup), setup.robot
    if q is None or observed.description is None:
        return None
    try:
        arms = [Kinematics(observed.description, robot.joints, frame, robot.base_frame) for frame in frames]
        return np.array([arm.forward(q)[0] for arm in arms])
    except InputError:  # reported by another check
        return None
