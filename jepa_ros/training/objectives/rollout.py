"""Rollout loss: predictions from predictions must stay accurate, as a planner uses the model.

V-JEPA 2-AC (arXiv 2506.09985: L1, two steps), JEPA-WMs (arXiv 2512.24497: two or six steps).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.errors import InputError
from jepa_ros.world_model.protocol import Context, PredictiveModel


class Rollout(nn.Module):
    """Error of the predicted latents of steps 2 to H, averaged; step 1 is the one-step loss itself.

    error: mean square (l2) or mean absolute (l1).
    """

    def __init__(self, error: Literal["l1", "l2"] = "l2"):
        super().__init__()
        self._error = {"l1": F.l1_loss, "l2": F.mse_loss}[error]

    def forward(
        self, model: PredictiveModel, context: Context, actions: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scalar loss and the predicted states (B, H, P), for action blocks (B, H, K) after the context and
        targets (B, H, *L). Gradients flow through every step. Raises InputError if H is 1."""
        steps = actions.shape[1]
        if steps < 2:
            raise InputError(f"rollout loss: needs at least 2 steps, found {steps}; set steps in the recipe's schedule")
        imagined, states = model.rollout(context, actions)
        return self._error(imagined[:, 1:], targets[:, 1:]), states
