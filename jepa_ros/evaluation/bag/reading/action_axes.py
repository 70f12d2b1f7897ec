"""Axes of a recording's executed actions, and turning the actions into the axes that the model has now.

The gate publishes `executed` in the model's axes, as the robot file defined them at that time; the bag does not contain
that rotation. The joint positions show it: their motion is in the base frame in any case. So a recording made before
the camera was calibrated, or with an earlier calibration, is evaluated as if made with the given robot file.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations, evenly_spread, find_situations
from jepa_ros.robot.camera_rotation import MIN_MOVES, estimate_rotation
from jepa_ros.robot.motion.action_space import PlanarVelocity

MAX_MOVES = 300
MIN_TURN_DEG = 3.0
"""Smaller rotations are ignored: the arm's lag behind its reference looks like one."""
MIN_EXPLAINED = 0.8
"""Share of the joints' motion that the turned actions must explain; otherwise actions are not turned."""


def turn_into_model_axes(recording: Recording, spec: EvaluationSpec) -> None:
    """Turn the recording's actions into the model's axes as the robot file defines them, where the joints show that
    they are in others, and set recording.turned_deg. Nothing changes where that is unknown: no description, a model
    without joint states, too little motion."""
    config = spec.config
    situations = find_situations(recording, replace(spec, horizon=1))
    known = np.flatnonzero(situations.known[:, 0] & np.isfinite(situations.target_states[:, 0]).all(axis=1))
    if len(known) < MIN_MOVES:
        return
    known = evenly_spread(known, MAX_MOVES)
    try:
        moved = _measured_motion(situations, known)
        if moved is None:
            return
        done = situations.future[known, 0].reshape(len(known), config.block, -1).sum(1)[:, : moved.shape[1]]
        turn = estimate_rotation(done, moved)
    except InputError:
        return
    if turn.explained < MIN_EXPLAINED or turn.degrees < max(MIN_TURN_DEG, turn.error_degrees):
        return
    rows = np.array(recording.actions.values).reshape(-1, config.action.dimension)
    recording.actions.values = array("d", _turn_actions(rows, turn.rotation).ravel())
    recording.turned_deg = turn.degrees


def _measured_motion(situations: Situations, rows: np.ndarray) -> np.ndarray | None:
    """Tool motion (n, 2 or 3) of a model step by the measured joints, in the model's axes and the unit of summed
    actions; None where it is unknown."""
    config, robot = situations.spec.config, situations.spec.robot
    state = config.proprioception
    mean, std = np.array(state.mean), np.array(state.std)
    before, after = (x[rows] * std + mean for x in (situations.states[:, -1], situations.target_states[:, 0]))
    if state.kind == "tool_pose":
        return after[:, :3] - before[:, :3]
    if not state.joints or config.action.name != PlanarVelocity.name:
        return None
    space = PlanarVelocity(robot, situations.recording.make_kinematics(robot), config.tick)
    arm = len(state.joints)
    return np.array([space.executed(*q) for q in zip(before[:, :arm], after[:, :arm], strict=True)]).reshape(-1, 2)


def _turn_actions(actions: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return actions (n, A) of either action space turned by a rotation (3, 3)."""
    if actions.shape[1] == 2:
        return actions @ rotation[:2, :2].T
    turn = Rotation.from_matrix(rotation)
    turns = (turn * Rotation.from_euler("xyz", actions[:, 3:6]) * turn.inv()).as_euler("xyz")
    return np.hstack([actions[:, :3] @ rotation.T, turns, actions[:, 6:]])
