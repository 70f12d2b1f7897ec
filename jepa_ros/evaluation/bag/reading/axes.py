"""The axes that a recording's executed actions are in, and bringing them into those that the model has now.

The gate writes `executed` in the model's axes by the robot's file as it was then; the bag does not say by which
rotation. The joints do: what they moved by is in the base frame, whatever the file said. So a recording made before a
camera was calibrated, or with an earlier calibration, is judged as if it had been made with the file that is given.
"""

from __future__ import annotations

from array import array

import numpy as np
from scipy.spatial.transform import Rotation

from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.situations import Windows, stretches, windows
from jepa_ros.robot.camera_rotation import MIN_MOVES, estimate_rotation
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.world_model.config import ModelConfig

MOVES = 300
LEAST = 3.0
"""Degrees by which axes must differ before anything is turned: lag of the arm behind its reference looks like some."""
AGREES = 0.8
"""Share of the joints' motion that turned actions must explain; else they are left as they are."""


def into_models(recorded: Recorded, config: ModelConfig, robot: RobotConfig) -> None:
    """Turn the recording's actions into the model's axes by the robot's file, where the joints show that they are in
    others; recorded.turned says by how much. They stay as they are where that cannot be told (no description, a model
    that takes no joints, too little motion)."""
    found = windows(stretches(recorded, config), config, 1)
    known = np.flatnonzero(found.known[:, 0] & np.isfinite(found.target_states[:, 0]).all(axis=1))
    if len(known) < MIN_MOVES:
        return
    known = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), MOVES)).round().astype(int))]
    try:
        moved = _moved(recorded, found, known, config, robot)
        if moved is None:
            return
        done = found.future[known, 0].reshape(len(known), config.block, -1).sum(1)[:, : moved.shape[1]]
        turn = estimate_rotation(done, moved)
    except InputError:
        return
    if turn.explained < AGREES or turn.degrees < max(LEAST, turn.error_degrees):
        return
    rows = np.array(recorded.actions.values).reshape(-1, config.action.dimension)
    recorded.actions.values = array("d", _turned(rows, turn.rotation).ravel())
    recorded.turned = turn.degrees


def _moved(
    recorded: Recorded, found: Windows, rows: np.ndarray, config: ModelConfig, robot: RobotConfig
) -> np.ndarray | None:
    """(n, 2 or 3): how far the measured joints brought the tool in a model step, in the model's axes and the unit of
    summed actions; None where it is not known."""
    state = config.proprioception
    mean, std = np.array(state.mean), np.array(state.std)
    before, after = (x[rows] * std + mean for x in (found.states[:, -1], found.target_states[:, 0]))
    if state.kind == "tool_pose":
        return after[:, :3] - before[:, :3]
    if recorded.urdf is None or not state.joints or config.action.name != PlanarVelocity.name:
        return None
    kinematics = Kinematics(recorded.urdf, robot.joints, robot.tool_frame, robot.base_frame)
    space = PlanarVelocity(robot, kinematics, config.tick)
    arm = len(state.joints)
    return np.array([space.executed(*q) for q in zip(before[:, :arm], after[:, :arm], strict=True)]).reshape(-1, 2)


def _turned(actions: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Actions (n, A) of either action space, turned by a rotation (3, 3)."""
    if actions.shape[1] == 2:
        return actions @ rotation[:2, :2].T
    turn = Rotation.from_matrix(rotation)
    turns = (turn * Rotation.from_euler("xyz", actions[:, 3:6]) * turn.inv()).as_euler("xyz")
    return np.hstack([actions[:, :3] @ rotation.T, turns, actions[:, 6:]])
