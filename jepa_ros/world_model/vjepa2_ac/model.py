"""Family vjepa2_ac: V-JEPA 2-AC (arXiv 2506.09985, section 3), a frozen V-JEPA 2 encoder and a predictor of patches.

A state is the gripper in the robot's base frame: position x, y, z (m), orientation as extrinsic x-y-z Euler angles
(rad), opening 0 to 1. An action is its change over a model step.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import BlockCausalPredictorConfig, ModelConfig, require_sizes
from jepa_ros.world_model.frozen_encoder import FrozenEncoder
from jepa_ros.world_model.protocol import PredictiveModel, as_images, flatten_views
from jepa_ros.world_model.vjepa2_ac.predictor import EXTRA, BlockCausalPredictor

STATE_FIELDS = ("x", "y", "z", "roll", "pitch", "yaw", "opening")
STATES = len(STATE_FIELDS)
MAX_TOKENS = 32768  # of a pass without gradients, which bounds its memory to 0.5 GB at the published sizes
GIMBAL_LOCK_COSINE = 1e-6  # of the middle Euler angle; below it the other two rotate about one axis


class VJepa2Ac(PredictiveModel):
    """Frozen encoder and block-causal predictor. latent_shape: (patches, width of the encoder)."""

    states = STATES

    def __init__(self, encoder: FrozenEncoder, config: ModelConfig):
        """Raises InputError where the sizes in config do not fit the family or each other."""
        super().__init__()
        sizes = require_sizes(config.predictor, BlockCausalPredictorConfig)
        images, state = config.preprocessing, config.proprioception
        _check_sizes(config, sizes)
        self.latent_shape, self.history = (encoder.tokens, encoder.width), config.history
        self.encoder = encoder
        self.predictor = BlockCausalPredictor(
            encoder.width, math.isqrt(encoder.tokens), sizes.width, sizes.depth, sizes.heads, sizes.mlp_ratio
        )
        for name, values in (
            ("mean", images.mean), ("std", images.std), ("state_mean", state.mean), ("state_std", state.std)
        ):  # fmt: skip
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """See WorldModel. Each frame is encoded on its own, as a clip of two equal frames, and layer-normed."""
        return self.encoder(as_images(flatten_views(frames, 1), self.mean, self.std))

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel. Actions (B, T, 7): see the module, m and rad.

        Predicted features are layer-normed like encoded ones; predicted states are the states moved by the actions.
        Raises InputError where states or actions do not have 7 numbers.
        """
        for name, given in (("states", states), ("actions", actions)):
            if given.shape[-1] != STATES:
                raise InputError(f"{name}: expected {STATES} numbers a step, found {given.shape[-1]}")
        situations, steps, patches, width = latents.shape
        batch = situations
        if not torch.is_grad_enabled():
            batch = max(1, MAX_TOKENS // (steps * (EXTRA + patches)))
        poses = states * self.state_std + self.state_mean
        parts = zip(*(x.split(batch) for x in (latents, actions, poses)), strict=True)
        predicted = torch.cat([F.layer_norm(self.predictor(*part), (width,)) for part in parts])
        return predicted, (move(poses, actions) - self.state_mean) / self.state_std


def _check_sizes(config: ModelConfig, sizes: BlockCausalPredictorConfig) -> None:
    if len(config.cameras) > 1:
        raise InputError(f"model {config.name}: expected one camera for vjepa2_ac, found {', '.join(config.cameras)}")
    for name, found in (("action blocks", config.action_block), ("proprioception", config.proprioception.dimension)):
        if found != STATES:
            raise InputError(f"model {config.name}: expected {name} of {STATES} numbers for vjepa2_ac, found {found}")
    if sizes.width % sizes.heads:
        raise InputError(
            f"model {config.name}: predictor: expected a width that {sizes.heads} heads divide, found {sizes.width}"
        )


def move(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Move states (..., 7) by actions (..., 7), as compute_new_pose of the official MPC code.

    Positions are added, the action's rotation is applied after the state's, openings are added and clipped to 0..1.
    """
    turned = euler_matrix(actions[..., 3:6]) @ euler_matrix(states[..., 3:6])
    opening = (states[..., 6:] + actions[..., 6:]).clamp(0.0, 1.0)
    return torch.cat([states[..., :3] + actions[..., :3], matrix_euler(turned), opening], dim=-1)


def euler_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Extrinsic x-y-z Euler angles (..., 3) in rad → rotation matrices (..., 3, 3), Rz(c) Ry(b) Rx(a)."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
        [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
        [-sb, cb * sa, cb * ca],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_euler(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) → extrinsic x-y-z Euler angles (..., 3) in rad, the middle one within ±π/2.

    In gimbal lock (±π/2) only the sum or difference of the other two is known; the last one is then 0.
    """
    cosine = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    locked = cosine < GIMBAL_LOCK_COSINE
    first = torch.where(
        locked,
        torch.atan2(-matrix[..., 1, 2], matrix[..., 1, 1]),
        torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]),
    )
    last = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]).masked_fill(locked, 0.0)
    return torch.stack([first, torch.atan2(-matrix[..., 2, 0], cosine), last], dim=-1)
