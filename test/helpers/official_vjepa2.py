"""Small files in the layout of the official V-JEPA 2-AC checkpoint, with random weights."""

from pathlib import Path

import torch

SIZE, PATCH, LATENT, WIDTH = 16, 8, 64, 64


def encoder(width: int = LATENT, depth: int = 1) -> dict[str, torch.Tensor]:
    """Tensors of a V-JEPA 2 encoder of 8-pixel patches under their official names."""
    tensors = {"patch_embed.proj.weight": _random(width, 3, 2, PATCH, PATCH), "patch_embed.proj.bias": _random(width)}
    for layer in range(depth):
        tensors |= _block(f"blocks.{layer}.", width, 4 * width)
    return tensors | _norm("norm", width)


def predictor(latent: int = LATENT, width: int = WIDTH, depth: int = 1, actions: int = 7) -> dict[str, torch.Tensor]:
    """Tensors of an action-conditioned predictor under their official names."""
    tensors = _linear("predictor_embed", latent, width) | _linear("predictor_proj", width, latent)
    tensors |= _linear("action_encoder", actions, width) | _linear("state_encoder", actions, width)
    tensors |= _linear("extrinsics_encoder", actions - 1, width)
    for layer in range(depth):
        tensors |= _block(f"predictor_blocks.{layer}.", width, 4 * width)
    return tensors | _norm("predictor_norm", width)


def contents(**changes) -> dict:
    """What the official file holds, with the parts in `changes` in place of its own."""
    held = {"encoder": encoder(), "predictor": predictor()} | changes
    prefixed = {part: {f"module.{key}": value for key, value in tensors.items()} for part, tensors in held.items()}
    return prefixed | {"opt": {"state": {}}, "epoch": 315}


def write(path: Path, **changes) -> Path:
    torch.manual_seed(2)
    torch.save(contents(**changes), path)
    return path


def _block(prefix: str, width: int, hidden: int) -> dict[str, torch.Tensor]:
    linear = {"attn.qkv": (width, 3 * width), "attn.proj": (width, width), "mlp.fc1": (width, hidden)}
    linear["mlp.fc2"] = (hidden, width)
    tensors = _norm(f"{prefix}norm1", width) | _norm(f"{prefix}norm2", width)
    for name, (into, out) in linear.items():
        tensors |= _linear(prefix + name, into, out)
    return tensors


def _linear(name: str, into: int, out: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": _random(out, into), f"{name}.bias": _random(out)}


def _norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": 1 + _random(width), f"{name}.bias": _random(width)}


def _random(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape)
