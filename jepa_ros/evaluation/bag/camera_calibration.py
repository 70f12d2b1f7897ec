"""`jepa_ros calibrate camera`: rotation between a model's axes and the robot's base, from small recorded moves.

For every move, find the action for which the model predicts what was seen afterwards: the same numbers in every tick of
a model step, by damped Gauss-Newton on the latent (the one-step energy that V-JEPA 2-AC, arXiv 2506.09985, plans with).
The executed action is recorded; it is turned into the base frame first, so the result is the whole rotation, and
replaces the one that the robot file may already have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bags.reader import open_bag
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.bag_reader import BagReader
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording, TopicOptions, find_topics
from jepa_ros.evaluation.bag.reading.situations import Situations, evenly_spread, find_situations
from jepa_ros.reporting.output import prepare_file
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.camera_rotation import estimate_rotation, yaw_rotation
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.files.draft import read_urdf
from jepa_ros.robot.files.yaml_edit import set_key
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.text_files import write_atomically
from jepa_ros.world_model.checkpoint import check_robot, choose_robot, load_checkpoint

ITERATIONS, BATCH = 8, 64
DERIVATIVE_STEP, MAX_STEP = 0.05, 0.5
"""Shares of an action's scale: the step of numerical derivatives, and the largest step of an iteration."""
DAMPING = 1e-3
MIN_SPEED_SHARE = 0.2
"""Share of the fast moves' speed (95th percentile); the direction of slower moves is unreliable."""
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
    """Estimate the rotation, print it, and write it into a robot file with --out or --write. Return 0.

    Raises InputError where model, robot, bag or file cannot be used, or the moves do not show a rotation.
    """
    if out is not None and write:
        raise InputError("calibrate camera: --out and --write exclude each other; give one of them")
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(model)
    arm = choose_robot(checkpoint.config, robot)
    check_robot(checkpoint.config, arm)
    robot_file, urdf = resolve_robot(robot or arm.name), read_urdf(description) if description else None
    target = prepare_file(out) if out is not None else prepare_file(robot_file, "--write") if write else None
    spec = EvaluationSpec(checkpoint, arm)
    with open_bag(Path(bag)) as source, ProgressDisplay() as display:
        topics = find_topics(source, checkpoint.config, arm, TopicOptions(tuple(camera)))
        if topics.problems:
            raise InputError(topics.problems[0])
        task = display.add("frames", None)
        recording = BagReader(source, topics, spec, urdf=urdf).read(lambda frames: display.update(task, frames))
        task = display.add("moves", None)
        predicted, measured = compare_moves(recording, spec, pairs, lambda done: display.update(task, done))
    try:
        rotation = estimate_rotation(predicted, measured, seed)
    except InputError as problem:
        raise InputError(f"bag {bag}: {problem}") from None
    value, axis = list(rotation.quaternion), ", ".join(f"{v:.2f}" for v in rotation.axis)
    angle = f"{rotation.degrees:.1f}° (± {rotation.error_degrees:.1f}°)"
    lines = [
        ("rotation", f"turned by {angle} about ({axis}) of the base frame"),
        ("from", f"{rotation.moves} moves ({rotation.left_out} left out)"),
        ("explained", f"{100 * rotation.explained:.0f} % of the measured motion"),
    ]
    if recording.turned_deg:
        turned = f"recorded with another {KEY} than {arm.name} has; actions turned by {recording.turned_deg:.1f}°"
        lines.append(("note", turned))
    if target is None:
        line = f"{KEY}: [{', '.join(f'{v:.6g}' for v in value)}]"
        lines.append((f"for {robot_file.name}", f"under camera: {line} (--out or --write writes it)"))
    else:
        changed = set_key(robot_file.read_text(encoding="utf-8"), "camera", KEY, value, f"robot {robot_file}")
        write_atomically(target, changed)
    print_result(f"axes of model {checkpoint.config.name}", lines, [] if target is None else [target])
    return 0


def compare_moves(
    recording: Recording, spec: EvaluationSpec, count: int, progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the motion of a tick, predicted in the model's axes and measured in the base frame, both (n, 2 or 3), for
    up to `count` moves, evenly spread over the recording.

    Velocities: share of the maximum speed; x and y only where the axes can be turned about z only, which is so in a
    plane and with yaw. pose_delta: m. Raises InputError where there are no moves.
    """
    config, robot = spec.config, spec.robot
    situations = find_situations(recording, spec)
    actions = situations.future[:, 0].reshape(len(situations), config.block, config.action.dimension).mean(1)
    in_space = config.action.name == "pose_delta" or config.action.dimension == 3
    axes = 3 if in_space else 2
    speed = np.linalg.norm(actions[:, :axes], axis=1)
    known = np.flatnonzero(situations.known[:, 0])
    if not len(known):
        raise InputError(f"bag {recording.path}: no move with executed actions and the frames before and after it")
    rows = evenly_spread(known[speed[known] > MIN_SPEED_SHARE * np.percentile(speed[known], 95)], count)
    scale, implied = np.ones(config.action.dimension), [np.zeros((0, config.action.dimension))]
    if config.action.name == "pose_delta":
        scale = np.array([robot.action_space.max_translation] * 3 + [robot.action_space.max_rotation] * 3 + [1.0])
    for begin in range(0, len(rows), BATCH):
        implied.append(_find_implied_actions(situations, rows[begin : begin + BATCH], scale))
        progress(begin + len(implied[-1]))
    return np.concatenate(implied)[:, :axes], to_base_frame(actions[rows, :axes], robot)


def to_base_frame(motion: np.ndarray, robot: RobotConfig) -> np.ndarray:
    """Turn motion (n, 2 or 3) from the model's axes, as the robot file defines them, into the base frame."""
    rotation = robot.camera.rotation_to_base
    if rotation is None:
        return motion
    return motion @ (yaw_rotation(rotation) if motion.shape[1] == 2 else rotation_matrix(rotation)).T


@torch.inference_mode()
def _find_implied_actions(situations: Situations, rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the actions (n, A) for which the model predicts the frames after situations `rows` (n,)."""
    checkpoint = situations.spec.checkpoint
    context = situations.context(rows)
    target = situations.recording.latents.rows(situations.targets[rows, 0]).flatten(1)
    block, unit = checkpoint.config.block, torch.from_numpy(scale).float()
    count = len(unit)

    def predict(actions: torch.Tensor) -> torch.Tensor:
        """actions (n, A) in units of their scale → latents (n, D)."""
        blocks = (actions * unit).repeat(1, block)[:, None]
        return checkpoint.model.rollout(context, blocks)[0][:, 0].flatten(1)

    actions = torch.zeros(len(rows), count)
    for _ in range(ITERATIONS):
        here = predict(actions)
        shifted = [predict(actions + DERIVATIVE_STEP * axis) for axis in torch.eye(count)]
        jacobian = torch.stack([(latents - here) / DERIVATIVE_STEP for latents in shifted], dim=-1)
        normal = jacobian.mT @ jacobian
        size = normal.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        damped = normal + DAMPING * size[:, None, None] * torch.eye(count)
        step = torch.linalg.solve(damped, (jacobian.mT @ (target - here)[..., None]))[..., 0]
        actions = (actions + step.clamp(-MAX_STEP, MAX_STEP)).clamp(-2.0, 2.0)
    return (actions * unit).numpy()
