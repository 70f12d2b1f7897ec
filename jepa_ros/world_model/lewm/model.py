"""LeWM: an encoder and an action-conditioned predictor in its latent space, trained together (arXiv 2603.19312)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.lewm.encoders import ConvEncoder, VitEncoder
from jepa_ros.world_model.lewm.fast_rollout import FastRollout
from jepa_ros.world_model.lewm.predictor import ActionEncoder, CausalPredictor, Projector
from jepa_ros.world_model.protocol import Context, PredictiveModel, as_images, flatten_views

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LeWM(PredictiveModel):
    """The WorldModel of family `lewm`: latents (B, D), states (B, P), action blocks (B, T, K).

    A token of the predictor is a latent and, where P > 0, the state beside it; the action's embedding is as wide. The
    prediction projector turns what comes out into the next latent (with `residual`: into its change); a linear layer
    into the change of the state. With P = 0, without `residual` and with one camera this is the published model.

    Several cameras: the one encoder sees each view, and the projector takes their features side by side.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: Projector,
        action_encoder: ActionEncoder,
        predictor: CausalPredictor,
        prediction_projector: Projector,
        history: int,
        states: int = 0,
        residual: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        cameras: int = 1,
    ):
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.action_encoder, self.predictor = action_encoder, predictor
        self.prediction_projector = prediction_projector
        self.state_head = nn.Linear(predictor.outputs, states) if states else None
        self.latent_shape, self.history, self.residual = (projector.outputs,), history, residual
        self.cameras = cameras
        self._imagination: FastRollout | None = None
        self._rounded = False
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """See WorldModel."""
        features = self.encoder(as_images(flatten_views(frames, self.cameras), self.mean, self.std))
        return self.projector(features.reshape(len(frames), self.cameras * features.shape[-1]))

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel."""
        tokens = latents if self.state_head is None else torch.cat([latents, states], dim=-1)
        predicted = self.predictor(tokens, self.action_encoder(actions))
        latent = self.prediction_projector(predicted)
        return (
            latents + latent if self.residual else latent,
            states if self.state_head is None else states + self.state_head(predicted),
        )

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel. In training mode, where BatchNorm depends on the batch, it is `predict` step by step; in
        evaluation mode the same numbers come sooner (FastRollout)."""
        if self.training:
            return super().rollout(context, actions)
        if self._imagination is None or not self._imagination.current:
            with torch.inference_mode(False):  # what is made in it could not take part in gradients later
                self._imagination = FastRollout(self, self._rounded)
        return self._imagination.rollout(context, actions)

    def set_rollout_dtype(self, dtype: torch.dtype) -> None:
        """Roll out in float32, or in bfloat16, which is sooner where the processor multiplies it; latents and states
        that come out are float32 in any case. Weights, `encode` and `predict` stay as they are.

        Raises InputError for another dtype.
        """
        if dtype not in (torch.float32, torch.bfloat16):
            raise InputError(f"dtype: expected torch.float32 or torch.bfloat16, found {dtype}")
        self._imagination, self._rounded = None, dtype == torch.bfloat16


def build_lewm(config: ModelConfig, encoder: None = None) -> LeWM:
    """A model of the sizes in `config`, with fresh weights.

    Raises InputError where the sizes do not go together.
    """
    if len(config.latent_shape) != 1:
        raise InputError(f"latent_shape: expected one number for family lewm, found {list(config.latent_shape)}")
    latent, states = config.latent_shape[0], config.proprioception.dimension
    token, image, sizes = latent + states, config.preprocessing, config.predictor
    encoder = _encoder(config)
    return LeWM(
        encoder,
        Projector(len(config.cameras) * encoder.width, config.projector_hidden, latent),
        ActionEncoder(config.action_block, sizes.action_smoothed, token, sizes.action_scale),
        CausalPredictor(
            config.history,
            token,
            sizes.width,
            sizes.depth,
            sizes.heads,
            sizes.head_dim,
            sizes.mlp,
            sizes.dropout,
            sizes.embedding_dropout,
        ),
        Projector(sizes.width, config.projector_hidden, latent),
        config.history,
        states,
        sizes.residual,
        image.mean,
        image.std,
        len(config.cameras),
    )


def _encoder(config: ModelConfig) -> VitEncoder | ConvEncoder:
    encoder, size = config.encoder, config.preprocessing.size
    if encoder.type == "conv":
        return ConvEncoder(size, encoder.channels)
    return VitEncoder(size, encoder.patch, encoder.width, encoder.depth, encoder.heads, encoder.mlp)
