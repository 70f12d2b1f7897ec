"""Checkpoints: a directory with config.json and model.safetensors. Pickles are never read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import RobotConfig, load_robot
from jepa_ros.text_files import atomic_path
from jepa_ros.world_model.config import WEIGHTS, ModelConfig, identify, read_config
from jepa_ros.world_model.device import CPU, on_device
from jepa_ros.world_model.heads import GoalPolicy, Probe, Reachability
from jepa_ros.world_model.protocol import Context, WorldModel


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model in evaluation mode and the heads trained on it, if any: policy, learned distance, and probes by
    name. model_id: 16 hex digits of config and weights. device: where all of these are; elsewhere than on the CPU the
    model can be asked from anywhere (DeviceProxy), the heads cannot."""

    config: ModelConfig
    model: WorldModel
    policy: GoalPolicy | None
    model_id: str
    directory: Path
    reachability: Reachability | None = None
    probes: dict[str, Probe] = field(default_factory=dict)
    device: torch.device = CPU


def build_model(config: ModelConfig, directory: Path) -> tuple[nn.Module, GoalPolicy | None]:
    """A model of the sizes in `config` and its policy, with fresh weights; frozen encoders are read from `directory`.

    Raises InputError where a frozen encoder is missing, or the sizes do not give the latents that `config` promises.
    """
    model = _FAMILIES[config.family](config, directory)
    if tuple(model.latent_shape) != config.latent_shape:
        raise InputError(
            f"model {directory}: expected latents of shape {config.latent_shape}, found {tuple(model.latent_shape)} "
            "from its encoder"
        )
    return model, build_policy(config)


def build_policy(config: ModelConfig) -> GoalPolicy | None:
    """The policy of the sizes in `config`, with fresh weights."""
    size, p = math.prod(config.latent_shape), config.policy
    if p is None:
        return None
    return GoalPolicy(size, config.proprioception.dimension, config.action_block, p.width, p.depth, p.max_ticks)


def build_reachability(config: ModelConfig) -> Reachability | None:
    """The learned distance of the sizes in `config`, with fresh weights."""
    size, r = math.prod(config.latent_shape), config.reachability
    return r and Reachability(size, config.proprioception.dimension, r.width, r.embedding, r.max_ticks)


def _lewm(config: ModelConfig, directory: Path) -> nn.Module:
    from jepa_ros.world_model.lewm.model import build_lewm

    return build_lewm(config)


def _dino_wm(config: ModelConfig, directory: Path) -> nn.Module:
    from jepa_ros.world_model.dino_wm.model import build_patch_model

    return build_patch_model(config, directory)


def _vjepa2_ac(config: ModelConfig, directory: Path) -> nn.Module:
    from jepa_ros.world_model.vjepa2_ac.model import build_vjepa2_ac

    return build_vjepa2_ac(config, directory)


def _outline(config: ModelConfig) -> nn.Module:
    """The model without a frozen encoder, for which something of its sizes stands in. To be made on torch's device
    "meta", where weights take no memory. Raises InputError where sizes do not go together."""
    if config.family == "lewm":
        return _lewm(config, Path())
    if len(config.latent_shape) != 2:
        shape = list(config.latent_shape)
        raise InputError(f"latent_shape: expected two numbers for family {config.family}, found {shape}")
    from jepa_ros.world_model.dino_wm.model import PatchWorldModel
    from jepa_ros.world_model.vjepa2_ac.model import VJepa2Ac

    tokens, width = config.latent_shape
    encoder = SimpleNamespace(tokens=tokens // len(config.cameras), width=width)
    return (PatchWorldModel if config.family == "dino_wm" else VJepa2Ac)(encoder, config)


_FAMILIES = {"lewm": _lewm, "dino_wm": _dino_wm, "vjepa2_ac": _vjepa2_ac}


def save_checkpoint(
    directory: Path,
    config: ModelConfig,
    model: nn.Module,
    policy: GoalPolicy | None,
    reachability: Reachability | None = None,
    probes: Mapping[str, Probe] = MappingProxyType({}),
) -> None:
    """Write config.json and model.safetensors; each appears whole or not at all. A frozen encoder is not written."""
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in own_state(model).items()}
    for prefix, head in (("policy.", policy), ("reachability.", reachability)):
        if head is not None:
            tensors |= {f"{prefix}{k}": v.detach().contiguous() for k, v in head.state_dict().items()}
    tensors |= {f"probe.{name}": probe.weights.contiguous() for name, probe in probes.items()}
    umask = os.umask(0)
    os.umask(umask)
    with atomic_path(directory / "config.json") as partial_config, atomic_path(directory / WEIGHTS) as partial:
        save_file(tensors, partial)
        partial.chmod(0o666 & ~umask)  # safetensors makes the file readable by its owner only
        partial_config.write_text(config.model_dump_json(indent=2) + "\n")


def load_checkpoint(name_or_path: str | Path, device: torch.device = CPU) -> Checkpoint:
    """A checkpoint by name (config/models/<name>) or directory, ready to run on a device.

    Raises InputError where a file is missing, truncated, or holds other tensors than config.json says.
    """
    directory = resolve_model(name_or_path)
    config = read_config(directory)
    tensors = _read_weights(directory / WEIGHTS)
    heads = {"policy.": build_policy, "reachability.": build_reachability}
    # Sizes that the weights do not have are found before memory is taken for them: they may be absurd.
    with torch.device("meta"):
        for prefix, make in {"model.": _outline, **heads}.items():
            _check_sizes(directory / WEIGHTS, own_state(make(config)), _under(tensors, prefix), prefix)
    model, policy = build_model(config, directory)
    reachability = build_reachability(config)
    for prefix, module in (("model.", model), ("policy.", policy), ("reachability.", reachability)):
        own = _under(tensors, prefix)
        _check(directory / WEIGHTS, own_state(module), own, prefix)
        if module is not None:
            module.load_state_dict(own, strict=False)
            module.eval().requires_grad_(False).to(device)
    probes = _probes(directory / WEIGHTS, config, _under(tensors, "probe."), device)
    asked = on_device(model, device)
    return Checkpoint(config, asked, policy, identify(directory), directory, reachability, probes, device)


def model_on(checkpoint: Checkpoint, device: torch.device) -> Checkpoint:
    """The same with its model on a device; heads and searches stay where they are."""
    return replace(checkpoint, model=on_device(checkpoint.model, device))


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _probes(path: Path, config: ModelConfig, found: dict[str, torch.Tensor], device: torch.device) -> dict[str, Probe]:
    rows, shape = config.latent_shape[-1] + 1, config.latent_shape
    _check(path, {p.name: torch.empty(rows, p.dimension) for p in config.probes}, found, "probe.")
    return {p.name: Probe(p.name, found[p.name].float().to(device), p.error_m, shape) for p in config.probes}


def own_state(module: nn.Module | None) -> dict[str, torch.Tensor]:
    """Its weights without those of a frozen encoder, which stay in their own directory; none of None."""
    if module is None:
        return {}
    frozen = tuple(f"{name}." for name, part in module.named_modules() if getattr(part, "frozen", False))
    return {k: v for k, v in module.state_dict().items() if not (frozen and k.startswith(frozen))}


def verify(path: Path) -> str:
    """Load a checkpoint, predict with it once, and say in one line what it is. Raises InputError."""
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    frame = torch.zeros(1, *config.frame_shape, dtype=torch.uint8)
    with torch.inference_mode():
        predicted, _ = checkpoint.model.rollout(resting_context(config, checkpoint.model.encode(frame)), blank(config))
    if not torch.isfinite(predicted).all():
        raise InputError(f"model {path}: expected a finite prediction of a black frame, found NaN or Inf")
    shape = " x ".join(map(str, config.latent_shape))
    size = f"{config.preprocessing.size} px to {shape} numbers, steps of {config.step:g} s"
    use = f"{config.action.name}, for {', '.join(config.robots) or 'no robot yet'}"
    return f"{config.name}: family {config.family}, {size}, {use}; id {checkpoint.model_id}"


def resting_context(config: ModelConfig, latent: torch.Tensor) -> Context:
    """The context of an arm that has stood still in its mean posture: latent (1, *L) all along."""
    h = config.history
    return Context(
        latent[:, None].expand(-1, h, *latent.shape[1:]),
        torch.zeros(1, h, config.proprioception.dimension),
        torch.zeros(1, h - 1, config.action_block),
    )


def blank(config: ModelConfig, steps: int = 1) -> torch.Tensor:
    """Action blocks (1, steps, K) of standing still."""
    return torch.zeros(1, steps, config.action_block)


def check_robot(config: ModelConfig, robot: RobotConfig) -> None:
    """Raise InputError where the model's action space or joints do not fit the robot."""
    wanted, found = config.action, robot.action_space
    if wanted.name != found.type:
        raise InputError(
            f"model {config.name}: expected a robot with action space {wanted.name}, found {found.type} on {robot.name}"
        )
    if found.type == "planar_velocity" and wanted.max_speed != found.max_speed:
        raise InputError(
            f"model {config.name}: expected a robot with action space {wanted.name} of {wanted.max_speed} m/s, "
            f"found {found.type} of {found.max_speed} m/s on {robot.name}"
        )
    state = config.proprioception
    if state.kind == "joints" and state.dimension and state.joints != tuple(robot.joints):
        raise InputError(
            f"model {config.name}: expected the joints {list(state.joints)}, found {robot.joints} on {robot.name}"
        )


def check_planar(config: ModelConfig) -> None:
    """Raise InputError where the model's actions are not those in which recorded plans are judged."""
    if config.action.name != "planar_velocity":
        raise InputError(
            f"model {config.name}: expected the action space planar_velocity to judge plans, found {config.action.name}"
        )


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"model {path}: expected the weights in safetensors format, found no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"model {path}: expected a safetensors file, found one that cannot be read: {error}") from None


def _check_sizes(path: Path, expected: dict, found: dict, prefix: str) -> None:
    if missing := sorted(set(expected) - set(found)):
        raise InputError(f"model {path}: expected the tensor {prefix}{missing[0]}, found none of that name")
    if extra := sorted(set(found) - set(expected)):
        raise InputError(f"model {path}: expected no tensor {prefix}{extra[0]}, found one")
    for key, tensor in expected.items():
        if tensor.shape != found[key].shape:
            raise InputError(
                f"model {path}: {prefix}{key}: expected shape {tuple(tensor.shape)}, found {tuple(found[key].shape)}"
            )


def _check(path: Path, expected: dict, found: dict, prefix: str) -> None:
    _check_sizes(path, expected, found, prefix)
    for key in expected:
        if not torch.isfinite(found[key].float()).all():
            raise InputError(f"model {path}: {prefix}{key}: expected finite values, found NaN or Inf")


def choose_robot(config: ModelConfig, name: str | None) -> RobotConfig:
    """The robot of that name or file, else the first that the model was trained for. Raises InputError."""
    if name is None and not config.robots:
        raise InputError(f"model {config.name}: expected a robot that it was trained for, found none: give --robot")
    return load_robot(name or config.robots[0])
