"""LeWM: an encoder and an action-conditioned predictor in its latent space, trained together (arXiv 2603.19312)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import (
    CausalPredictorConfig,
    ConvEncoderConfig,
    ModelConfig,
    VitEncoderConfig,
    require_sizes,
)
from jepa_ros.world_model.lewm.encoders import ConvEncoder, VitEncoder
from jepa_ros.world_model.lewm.fast_rollout import FastRollout
from jepa_ros.world_model.lewm.predictor import ActionEncoder, CausalPredictor, Projector
from jepa_ros.world_model.protocol import Context, PredictiveModel, as_images, flatten_views

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LeWM(PredictiveModel):
    """The model family `lewm`: latents (B, D), states (B, P), action blocks (B, T, K).

    A token of the predictor is a latent and, where P > 0, the state beside it; the action embedding has the same width.
    The prediction projector maps the predictor's output to the next latent (with `residual`: to its change), a linear
    layer maps it to the change of the state. With P = 0, without `residual` and with one camera this is the published
    model. With several cameras the same encoder sees each view, and the projector takes their features side by side.
    """

    def __init__(self, config: ModelConfig, encoder: None = None):
        """Build a model of the sizes in `config`, with fresh weights. encoder: none, LeWM trains its own.

        Raises InputError where the sizes do not go together.
        """
        super().__init__()
        if len(config.latent_shape) != 1:
            raise InputError(f"latent_shape: expected one number for family lewm, found {list(config.latent_shape)}")
        sizes = require_sizes(config.predictor, CausalPredictorConfig)
        hidden, (latent,) = config.projector_hidden, config.latent_shape
        states = config.proprioception.dimension
        token = latent + states
        self.latent_shape, self.history, self.residual = config.latent_shape, config.history, sizes.residual
        self.cameras = len(config.cameras)
        self.encoder = _build_encoder(config)
        self.projector = Projector(self.cameras * self.encoder.width, hidden, latent)
        self.action_encoder = ActionEncoder(config.action_block, sizes.action_smoothed, token, sizes.action_scale)
        self.predictor = CausalPredictor(config.history, token, sizes)
        self.prediction_projector = Projector(sizes.width, hidden, latent)
        self.state_head = nn.Linear(sizes.width, states) if states else None
        self._fast_rollout: FastRollout | None = None
        self._bfloat16 = False
        self.register_buffer("mean", torch.tensor(config.preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.preprocessing.std), persistent=False)

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        features = self.encoder(as_images(flatten_views(frames, self.cameras), self.mean, self.std))
        return self.projector(features.reshape(len(frames), self.cameras * features.shape[-1]))

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = latents if self.state_head is None else torch.cat([latents, states], dim=-1)
        predicted = self.predictor(tokens, self.action_encoder(actions))
        latent = self.prediction_projector(predicted)
        return (
            latents + latent if self.residual else latent,
            states if self.state_head is None else states + self.state_head(predicted),
        )

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel. In evaluation mode by FastRollout; in training mode, where BatchNorm depends on the batch, by
        `predict` step by step."""
        if self.training:
            return super().rollout(context, actions)
        if self._fast_rollout is None or not self._fast_rollout.is_current:
            with torch.inference_mode(False):  # tensors made in inference mode could not take part in gradients later
                self._fast_rollout = FastRollout(self, self._bfloat16)
        return self._fast_rollout.rollout(context, actions)

    def set_rollout_dtype(self, dtype: torch.dtype) -> None:
        """Roll out in float32, or in bfloat16, which is faster on processors with native support.

        Latents and states are returned in float32 in any case; weights, `encode` and `predict` do not change. Raises
        InputError for another dtype.
        """
        if dtype not in (torch.float32, torch.bfloat16):
            raise InputError(f"dtype: expected torch.float32 or torch.bfloat16, found {dtype}")
        self._fast_rollout, self._bfloat16 = None, dtype == torch.bfloat16


def _build_encoder(config: ModelConfig) -> VitEncoder | ConvEncoder:
    encoder, size = config.encoder, config.preprocessing.size
    if isinstance(encoder, ConvEncoderConfig):
        return ConvEncoder(size, encoder.channels)
    return VitEncoder(size, require_sizes(encoder, VitEncoderConfig))
