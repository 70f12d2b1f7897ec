"""Checkpoints: a directory with config.json and model.safetensors. Pickles are never read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from jepa_ros.errors import InputError
from jepa_ros.planning.policy import GoalPolicy
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ModelConfig, read_config
from jepa_ros.world_model.conv_encoder import ConvEncoder
from jepa_ros.world_model.jepa import Jepa
from jepa_ros.world_model.mlp_predictor import MlpPredictor

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model in evaluation mode and the policy trained on it. model_id: 16 hex digits of config and weights."""

    config: ModelConfig
    model: Jepa
    policy: GoalPolicy
    model_id: str
    directory: Path


def build(config: ModelConfig) -> tuple[Jepa, GoalPolicy]:
    """A model and policy of the sizes in `config`, with fresh weights."""
    latent_dim, actions = config.encoder.latent_dim, config.block * config.action.dimension
    encoder = ConvEncoder(config.preprocessing.size, config.encoder.channels, config.encoder.hidden, latent_dim)
    predictor = MlpPredictor(
        latent_dim,
        config.history,
        config.proprioception.dimension,
        actions,
        config.predictor.width,
        config.predictor.depth,
    )
    policy = GoalPolicy(
        latent_dim,
        config.proprioception.dimension,
        actions,
        config.policy.width,
        config.policy.depth,
        config.policy.max_ticks,
    )
    return Jepa(encoder, predictor), policy


def save(directory: Path, config: ModelConfig, model: Jepa, policy: GoalPolicy) -> None:
    """Write config.json and model.safetensors; each appears whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"policy.{k}": v.detach().contiguous() for k, v in policy.state_dict().items()}
    save_file(tensors, directory / f"{WEIGHTS}.partial")
    (directory / "config.json.partial").write_text(config.model_dump_json(indent=2) + "\n")
    for name in (WEIGHTS, "config.json"):
        os.replace(directory / f"{name}.partial", directory / name)


def load(name_or_path: str | Path) -> Checkpoint:
    """A checkpoint by name (config/models/<name>) or directory, ready to run.

    Raises InputError where a file is missing, truncated, or holds other tensors than config.json says.
    """
    directory = resolve_model(name_or_path)
    config = read_config(directory)
    model, policy = build(config)
    tensors = _read_weights(directory / WEIGHTS)
    for module, prefix in ((model, "model."), (policy, "policy.")):
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        _check(directory / WEIGHTS, module.state_dict(), own, prefix)
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return Checkpoint(config, model, policy, identify(directory), directory)


def identify(directory: Path) -> str:
    """16 hex digits that differ wherever weights or configuration do; latents of two models never mix."""
    digest = hashlib.sha256()
    for name in ("config.json", WEIGHTS):
        digest.update((directory / name).read_bytes())
    return digest.hexdigest()[:16]


def verify(path: Path) -> str:
    """Load a checkpoint, predict with it once, and say in one line what it is. Raises InputError."""
    checkpoint = load(path)
    config = checkpoint.config
    frame = torch.zeros(1, config.preprocessing.size, config.preprocessing.size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        latent = checkpoint.model.encode(frame)
        state = torch.zeros(1, config.proprioception.dimension)
        actions = torch.zeros(1, 1, config.block * config.action.dimension)
        predicted = checkpoint.model.rollout(latent[:, None].expand(-1, config.history, -1), state, actions)
    if not torch.isfinite(predicted).all():
        raise InputError(f"model {path}: expected a finite prediction of a black frame, found NaN or Inf")
    size = f"{config.preprocessing.size} px to {config.encoder.latent_dim} numbers, steps of {config.step:g} s"
    use = f"{config.action.name}, for {', '.join(config.robots)}"
    return f"{config.name}: family {config.family}, {size}, {use}; id {checkpoint.model_id}"


def check_robot(config: ModelConfig, robot: RobotConfig) -> None:
    """Raise InputError where the model's action space or joints do not fit the robot."""
    wanted, found = config.action, robot.action_space
    if (wanted.name, wanted.max_speed) != (found.type, found.max_speed):
        raise InputError(
            f"model {config.name}: expected a robot with action space {wanted.name} of {wanted.max_speed} m/s, "
            f"found {found.type} of {found.max_speed} m/s on {robot.name}"
        )
    if config.proprioception.joints != tuple(robot.joints):
        raise InputError(
            f"model {config.name}: expected the joints {list(config.proprioception.joints)}, "
            f"found {robot.joints} on {robot.name}"
        )


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"model {path}: expected the weights in safetensors format, found no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"model {path}: expected a safetensors file, found one that cannot be read: {error}") from None


def _check(path: Path, expected: dict, found: dict, prefix: str) -> None:
    if missing := sorted(set(expected) - set(found)):
        raise InputError(f"model {path}: expected the tensor {prefix}{missing[0]}, found none of that name")
    if extra := sorted(set(found) - set(expected)):
        raise InputError(f"model {path}: expected no tensor {prefix}{extra[0]}, found one")
    for key, tensor in expected.items():
        if tensor.shape != found[key].shape:
            raise InputError(
                f"model {path}: {prefix}{key}: expected shape {tuple(tensor.shape)}, found {tuple(found[key].shape)}"
            )
        if not torch.isfinite(found[key].float()).all():
            raise InputError(f"model {path}: {prefix}{key}: expected finite values, found NaN or Inf")
