"""Checkpoints: a directory with config.json and model.safetensors. Pickles are never read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import VELOCITY_SPACES, RobotConfig, load_robot
from jepa_ros.text_files import atomic_path
from jepa_ros.world_model.config import (
    CONFIG,
    FAMILIES,
    WEIGHTS,
    FrozenEncoderConfig,
    ModelConfig,
    identify,
    read_config,
)
from jepa_ros.world_model.device import CPU, on_device
from jepa_ros.world_model.fit import check_robot as check_robot
from jepa_ros.world_model.heads import GoalPolicy, Probe, Reachability
from jepa_ros.world_model.protocol import Context, PredictiveModel, WorldModel


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model in evaluation mode and the heads trained on it, if any: policy, learned distance, probes by name.

    model_id: see config.identify. device: of model and heads. The model takes and returns tensors of any device
    (DeviceProxy), the heads those of their own only.
    """

    config: ModelConfig
    model: WorldModel
    policy: GoalPolicy | None
    model_id: str
    directory: Path
    reachability: Reachability | None = None
    probes: dict[str, Probe] = field(default_factory=dict)
    device: torch.device = CPU


def build_model(config: ModelConfig, directory: Path) -> tuple[PredictiveModel, GoalPolicy | None]:
    """Return a model of the sizes in `config` and its policy, with fresh weights; a frozen encoder is read from the
    checkpoint `directory`.

    Raises InputError if a frozen encoder is missing or another one, or if the latents have another shape than in
    config.
    """
    encoder = None
    if isinstance(config.encoder, FrozenEncoderConfig):
        from jepa_ros.world_model.frozen_encoder import load_configured_encoder

        encoder = load_configured_encoder(config.encoder, directory, config.preprocessing.size)
    model = _build(config, encoder)
    if tuple(model.latent_shape) != config.latent_shape:
        raise InputError(
            f"model {directory}: expected latents of shape {config.latent_shape}, found {tuple(model.latent_shape)} "
            "from its encoder"
        )
    return model, build_policy(config)


def build_policy(config: ModelConfig) -> GoalPolicy | None:
    """Return the policy of the sizes in `config`, with fresh weights."""
    size, p = math.prod(config.latent_shape), config.policy
    if p is None:
        return None
    return GoalPolicy(size, config.proprioception.dimension, config.action_block, p.width, p.depth, p.max_ticks)


def build_reachability(config: ModelConfig) -> Reachability | None:
    """Return the learned distance of the sizes in `config`, with fresh weights."""
    size, r = math.prod(config.latent_shape), config.reachability
    if r is None:
        return None
    return Reachability(size, config.proprioception.dimension, r.width, r.embedding, r.max_ticks)


def _build(config: ModelConfig, encoder: nn.Module | None) -> PredictiveModel:
    module, _, factory = FAMILIES[config.family].factory.partition(":")
    return getattr(import_module(f"jepa_ros.world_model.{module}"), factory)(config=config, encoder=encoder)


def _build_outline(config: ModelConfig) -> PredictiveModel:
    """Return the model with a stand-in for its frozen encoder. To be called on torch's device "meta", where weights
    take no memory. Raises InputError if sizes do not fit together."""
    if not isinstance(config.encoder, FrozenEncoderConfig):
        return _build(config, None)
    if len(config.latent_shape) != 2:
        shape = list(config.latent_shape)
        raise InputError(f"latent_shape: expected two numbers for family {config.family}, found {shape}")
    tokens, width = config.latent_shape
    return _build(config, _EncoderSizes(tokens // len(config.cameras), width))


class _EncoderSizes(nn.Module):
    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.tokens, self.width = tokens, width


def save_checkpoint(
    directory: Path,
    config: ModelConfig,
    model: nn.Module,
    policy: GoalPolicy | None,
    reachability: Reachability | None = None,
    probes: Mapping[str, Probe] = MappingProxyType({}),
) -> None:
    """Write config.json and model.safetensors, each atomically. A frozen encoder is not written."""
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in own_state(model).items()}
    for prefix, head in (("policy.", policy), ("reachability.", reachability)):
        if head is not None:
            tensors |= {f"{prefix}{k}": v.detach().contiguous() for k, v in head.state_dict().items()}
    tensors |= {f"probe.{name}": probe.weights.contiguous() for name, probe in probes.items()}
    umask = os.umask(0)
    os.umask(umask)
    with atomic_path(directory / CONFIG) as partial_config, atomic_path(directory / WEIGHTS) as partial:
        save_file(tensors, partial)
        partial.chmod(0o666 & ~umask)  # safetensors makes the file readable by its owner only
        partial_config.write_text(config.model_dump_json(indent=2) + "\n")


def load_checkpoint(name_or_path: str | Path, device: torch.device = CPU) -> Checkpoint:
    """Load a checkpoint by name or directory (resources.resolve_model), ready to run on a device.

    Raises InputError if a file is missing or truncated, or does not have the tensors that config.json describes.
    """
    directory = resolve_model(name_or_path)
    config = read_config(directory)
    tensors, what = _read_weights(directory / WEIGHTS), f"model {directory / WEIGHTS}"
    heads = {"policy.": build_policy, "reachability.": build_reachability}
    # Compare sizes before memory is allocated for them: those of a damaged config.json may be absurd.
    with torch.device("meta"):
        for prefix, make in {"model.": _build_outline, **heads}.items():
            check_tensors(what, own_state(make(config)), _under(tensors, prefix), prefix, sizes_only=True)
    model, policy = build_model(config, directory)
    reachability = build_reachability(config)
    for prefix, module in (("model.", model), ("policy.", policy), ("reachability.", reachability)):
        own = _under(tensors, prefix)
        check_tensors(what, own_state(module), own, prefix)
        if module is not None:
            module.load_state_dict(own, strict=False)
            module.eval().requires_grad_(False).to(device)
    probes = _make_probes(what, config, _under(tensors, "probe."), device)
    placed = on_device(model, device)
    return Checkpoint(config, placed, policy, identify(directory), directory, reachability, probes, device)


def model_on(checkpoint: Checkpoint, device: torch.device) -> Checkpoint:
    """Return a copy with its model on a device; the heads, and searches with them, stay where they are."""
    return replace(checkpoint, model=on_device(checkpoint.model, device))


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _make_probes(
    what: str, config: ModelConfig, found: dict[str, torch.Tensor], device: torch.device
) -> dict[str, Probe]:
    rows, shape = config.latent_shape[-1] + 1, config.latent_shape
    check_tensors(what, {p.name: torch.empty(rows, p.dimension) for p in config.probes}, found, "probe.")
    return {p.name: Probe(p.name, found[p.name].float().to(device), p.error_m, shape) for p in config.probes}


def own_state(module: nn.Module | None) -> dict[str, torch.Tensor]:
    """Return the weights of a module without those of a frozen encoder, which has its own files; {} for None."""
    if module is None:
        return {}
    frozen = tuple(f"{name}." for name, part in module.named_modules() if getattr(part, "frozen", False))
    return {k: v for k, v in module.state_dict().items() if not (frozen and k.startswith(frozen))}


def verify(path: Path) -> str:
    """Load a checkpoint, predict with it once, and return one line that describes it. Raises InputError."""
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    frame = torch.zeros(1, *config.frame_shape, dtype=torch.uint8)
    still = torch.zeros(1, 1, config.action_block)
    with torch.inference_mode():
        predicted, _ = checkpoint.model.rollout(resting_context(config, checkpoint.model.encode(frame)), still)
    if not torch.isfinite(predicted).all():
        raise InputError(f"model {path}: the prediction of a black frame is NaN or Inf")
    shape = " x ".join(map(str, config.latent_shape))
    size = f"{config.preprocessing.size} px to {shape} numbers, steps of {config.step:g} s"
    use = f"{config.action.name}, for {', '.join(config.robots) or 'no robot yet'}"
    return f"{config.name}: family {config.family}, {size}, {use}; id {checkpoint.model_id}"


def resting_context(config: ModelConfig, latent: torch.Tensor) -> Context:
    """Return the context of an arm at rest in its mean posture, with latent (1, *L) at every step."""
    h = config.history
    return Context(
        latent[:, None].expand(-1, h, *latent.shape[1:]),
        torch.zeros(1, h, config.proprioception.dimension),
        torch.zeros(1, h - 1, config.action_block),
    )


def check_velocity_space(config: ModelConfig) -> None:
    """Raise InputError if the model's action space is not one of velocities, in which recorded plans are evaluated."""
    if config.action.name not in VELOCITY_SPACES:
        raise InputError(
            f"model {config.name}: plans are evaluated in action spaces {' and '.join(VELOCITY_SPACES)} only, found "
            f"{config.action.name}"
        )


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"model {path}: expected the weights in safetensors format, found no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"model {path}: expected a safetensors file, found one that cannot be read: {error}") from None


def check_tensors(
    what: str,
    expected: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    prefix: str = "",
    sizes_only: bool = False,
) -> None:
    """Raise InputError if names or shapes of the tensors differ, or a value is not finite.

    what: names the file in the text. prefix: of the names in the text. sizes_only: do not read the values.
    """
    if missing := sorted(set(expected) - set(found)):
        raise InputError(f"{what}: the tensor {prefix}{missing[0]} is missing")
    if extra := sorted(set(found) - set(expected)):
        raise InputError(f"{what}: unexpected tensor {prefix}{extra[0]}")
    for key, tensor in expected.items():
        if tensor.shape != found[key].shape:
            raise InputError(
                f"{what}: {prefix}{key}: expected shape {tuple(tensor.shape)}, found {tuple(found[key].shape)}"
            )
        if not sizes_only and not torch.isfinite(found[key].float()).all():
            raise InputError(f"{what}: {prefix}{key}: expected finite values, found NaN or Inf")


def choose_robot(config: ModelConfig, name: str | None) -> RobotConfig:
    """Return the robot of that name or file; None: the first that the model was trained for. Raises InputError."""
    if name is None and not config.robots:
        raise InputError(f"model {config.name}: its config names no robot; give one (--robot)")
    return load_robot(name or config.robots[0])
