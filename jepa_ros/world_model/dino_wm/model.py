"""Family dino_wm: patch tokens of a frozen encoder, and a trained predictor of them.

By configuration DINO-WM (arXiv 2411.04983) or JEPA-WMs (arXiv 2512.24497): see predictor.py.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import ModelConfig, PatchPredictorConfig, require_sizes
from jepa_ros.world_model.dino_wm.predictor import PatchPredictor
from jepa_ros.world_model.protocol import PredictiveModel, as_images, flatten_views


class PatchWorldModel(PredictiveModel):
    """Frozen encoder and trained predictor. With several cameras the tokens of the views follow one another."""

    def __init__(self, encoder: nn.Module, config: ModelConfig):
        """encoder: a FrozenEncoder, or a stand-in with its `tokens` and `width`.

        Raises InputError where its tokens, of all cameras, are not config.latent_shape, the predictor's sizes do not
        fit together, or rope is set with several cameras: it has the rows and columns of one grid.
        """
        super().__init__()
        self.cameras = len(config.cameras)
        tokens, width = found = self.cameras * encoder.tokens, encoder.width
        if config.latent_shape != found:
            raise InputError(
                f"model {config.name}: expected an encoder with latent_shape {config.latent_shape} (tokens, width) "
                f"at {config.preprocessing.size} px, found one with {found}"
            )
        sizes = require_sizes(config.predictor, PatchPredictorConfig)
        if self.cameras > 1 and sizes.positions == "rope":
            raise InputError(
                f"model {config.name}: predictor.positions: expected learned for {self.cameras} cameras, found rope"
            )
        self.latent_shape, self.history = config.latent_shape, config.history
        self.encoder = encoder
        self.predictor = PatchPredictor(
            sizes,
            tokens=tokens,
            width=width,
            history=config.history,
            actions=config.action_block,
            states=config.proprioception.dimension,
        )
        self.register_buffer("mean", torch.tensor(config.preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.preprocessing.std), persistent=False)

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        features = self.encoder(as_images(flatten_views(frames, self.cameras), self.mean, self.std))
        return features.float().view(len(frames), *self.latent_shape)

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel. Raises InputError where a shape does not fit the model."""
        situations, steps = latents.shape[:2]
        expected = (self.latent_shape, (self.predictor.states,), (self.predictor.actions,))
        names = ("latents", "states", "actions")
        for name, given, shape in zip(names, (latents, states, actions), expected, strict=True):
            if given.shape != (situations, steps, *shape):
                raise InputError(f"{name}: expected {(situations, steps, *shape)}, found {tuple(given.shape)}")
        if not 1 <= steps <= self.history:
            raise InputError(f"latents: expected 1 to {self.history} steps, found {steps}")
        return self.predictor(latents, states, actions)
