"""`jepa_ros calibrate camera`: how a model's axes are turned against the robot's base, from a recording of small moves.

For every move the action is sought that the model would have predicted what then was seen for: one of the same numbers
in every tick of a model step, by damped Gauss-Newton on the latent (the energy of one step that V-JEPA 2-AC,
arXiv 2506.09985, plans by). What was executed is known from the recording, and turned into the base frame first: the
rotation that is found is the whole one, also where the robot's file has one already, and takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bags.reader import open_bag
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading import topics as inputs
from jepa_ros.evaluation.bag.reading.reader import Intake
from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.situations import Windows, stretches, windows
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.camera_rotation import CameraRotation, estimate_rotation, yaw_rotation
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.files.yaml_edit import set_key
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.text_files import write_atomically
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot, choose_robot, load_checkpoint
from jepa_ros.world_model.config import ModelConfig

ITERATIONS, BATCH = 8, 64
PROBED, LARGEST = 0.05, 0.5
"""Of an action's scale: the step that derivatives are taken by, and the largest that an iteration goes."""
DAMPING = 1e-3
MOVING = 0.2
"""Of the fast moves' speed (95th percentile): slower ones say nothing of a direction."""
KEY = "rotation_to_base"


def calibrate_camera(
    *,
    bag: Path,
    robot: str | None,
    model: str,
    camera: Sequence[str],
    description: Path | None,
    pairs: int,
    seed: int,
    out: Path | None,
    write: bool,
) -> int:
    """Estimate, print a line, and write the robot's YAML where asked to. Returns 0. Raises InputError."""
    if out is not None and write:
        raise InputError("calibrate camera: expected --out or --write, found both")
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(model)
    arm = choose_robot(checkpoint.config, robot)
    check_robot(checkpoint.config, arm)
    urdf = _text(description)
    with open_bag(Path(bag)) as source, ProgressDisplay() as bar:
        found = inputs.find(source, checkpoint.config, arm, inputs.Options(tuple(camera)))
        if found.problems:
            raise InputError(found.problems[0])
        task = bar.add("frames", None)
        recorded = Intake(source, found, checkpoint, arm, urdf=urdf).run(lambda frames: bar.update(task, frames))
        task = bar.add("moves", None)
        predicted, measured = moves(checkpoint, recorded, arm, pairs, lambda done: bar.update(task, done))
    if recorded.turned:
        print(f"bag {bag}: recorded with another {KEY} than {arm.name} has; actions turned by {recorded.turned:.1f}°")
    try:
        rotation = estimate_rotation(predicted, measured, seed)
    except InputError as problem:
        raise InputError(f"bag {bag}: {problem}") from None
    print(said(rotation, checkpoint.config))
    _keep(rotation, robot or arm.name, out, write)
    return 0


def moves(
    checkpoint: Checkpoint, recorded: Recorded, robot: RobotConfig, most: int, progress=lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Motion predicted (in the model's axes) and measured (in the base frame's), both (n, 2 or 3) of a tick, at most so
    many moves, evenly spread over the recording.

    planar_velocity: share of its greatest speed, x and y. pose_delta: m.
    """
    config = checkpoint.config
    found = windows(stretches(recorded, config), config, 1)
    actions = found.future[:, 0].reshape(len(found), config.block, config.action.dimension).mean(1)
    axes = 2 if config.action.name == "planar_velocity" else 3
    speed = np.linalg.norm(actions[:, :axes], axis=1)
    known = np.flatnonzero(found.known[:, 0]) if len(found) else np.zeros(0, int)
    if not len(known):
        raise InputError(f"bag {recorded.path}: expected moves with executed actions, found none that are whole")
    rows = known[speed[known] > MOVING * np.percentile(speed[known], 95)]
    rows = (
        rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int))] if len(rows) else rows
    )
    scale, implied = action_scale(config, robot), []
    for begin in range(0, len(rows), BATCH):
        implied.append(_implied(checkpoint, recorded, found, rows[begin : begin + BATCH], scale))
        progress(begin + len(implied[-1]))
    predicted = np.concatenate(implied) if implied else np.zeros((0, config.action.dimension))
    return predicted[:, :axes], in_base(actions[rows, :axes], robot)


def in_base(motion: np.ndarray, robot: RobotConfig) -> np.ndarray:
    """Motion (n, 2 or 3) from the model's axes, as the robot's file has them, into the base frame."""
    rotation = robot.camera.rotation_to_base
    if rotation is None:
        return motion
    return motion @ (yaw_rotation(rotation) if motion.shape[1] == 2 else rotation_matrix(rotation)).T


def action_scale(config: ModelConfig, robot: RobotConfig) -> np.ndarray:
    """(A,) of a large action."""
    if config.action.name != "pose_delta":
        return np.ones(config.action.dimension)
    space = robot.action_space
    return np.array([space.max_translation] * 3 + [space.max_rotation] * 3 + [1.0])


@torch.inference_mode()
def _implied(
    checkpoint: Checkpoint, recorded: Recorded, found: Windows, rows: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """(n, A): the actions for which the model predicts what came after situations `rows` (n,)."""
    context = found.context(recorded, rows)
    target = recorded.latents.rows(found.targets[rows, 0]).flatten(1)
    block, unit = checkpoint.config.block, torch.from_numpy(scale).float()
    count = len(unit)

    def predict(actions: torch.Tensor) -> torch.Tensor:
        """actions (n, A) in units of their scale → latents (n, D)."""
        whole = (actions * unit).repeat(1, block)[:, None]
        return checkpoint.model.rollout(context, whole)[0][:, 0].flatten(1)

    actions = torch.zeros(len(rows), count)
    for _ in range(ITERATIONS):
        here = predict(actions)
        jacobian = torch.stack(
            [(predict(actions + PROBED * step) - here) / PROBED for step in torch.eye(count)], dim=-1
        )
        normal = jacobian.mT @ jacobian
        size = normal.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        damped = normal + DAMPING * size[:, None, None] * torch.eye(count)
        step = torch.linalg.solve(damped, (jacobian.mT @ (target - here)[..., None]))[..., 0]
        actions = (actions + step.clamp(-LARGEST, LARGEST)).clamp(-2.0, 2.0)
    return (actions * unit).numpy()


def said(rotation: CameraRotation, config: ModelConfig) -> str:
    """The result in one line."""
    axis = ", ".join(f"{v:.2f}" for v in rotation.axis)
    return (
        f"model {config.name}: its axes are turned by {rotation.degrees:.1f}° (± {rotation.error_degrees:.1f}°) about "
        f"({axis}) of the base frame; from {rotation.moves} moves ({rotation.left_out} left out), which explain "
        f"{100 * rotation.explained:.0f} % of the measured motion"
    )


def _keep(rotation: CameraRotation, robot: str, out: Path | None, write: bool) -> None:
    """Into a file, or said as the line that a person can copy."""
    value = list(rotation.quaternion)
    path = resolve_robot(robot)
    if out is None and not write:
        print(f"for {path.name}, under camera: {KEY}: [{', '.join(f'{v:.6g}' for v in value)}]  (--out or --write)")
        return
    target = path if write else out
    changed = set_key(path.read_text(encoding="utf-8"), "camera", KEY, value, f"robot {path}")
    try:
        write_atomically(target, changed)
    except OSError as problem:
        raise InputError(f"out {target}: cannot be written: {problem}") from None
    print(f"written to {target}")


def _text(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise InputError(f"description {path}: expected a URDF file, found {problem}") from None
