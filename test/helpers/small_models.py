"""Small models for tests: one with random weights, and one that knows its world."""

from pathlib import Path

import numpy as np
import torch

from jepa_ros.world_model.checkpoint import Checkpoint, build_model
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import PredictiveModel

torch.set_num_threads(1)

SCALE = 0.05
"""m of tool displacement that the latent of `Shifts` moves by 1 for."""


def config(joints=("a", "b"), gripper=(), *, size=16, latent=4, block=4, history=2, **changes) -> ModelConfig:
    fields = 2 * len(joints) + len(gripper)
    values = {
        "name": "tiny",
        "encoder": {"type": "conv", "channels": (4, 8)},
        "predictor": {
            "type": "causal",
            "width": 16,
            "depth": 1,
            "heads": 2,
            "head_dim": 8,
            "mlp": 32,
            "dropout": 0.0,
            "residual": True,
        },
        "projector_hidden": 16,
        "latent_shape": (latent,),
        "policy": {"width": 16, "depth": 1},
        "preprocessing": {"size": size},
        "history": history,
        "control_rate": 10.0,
        "block": block,
        "action": {"name": "planar_velocity", "dimension": 2, "max_speed": 0.2},
        "proprioception": {"joints": joints, "gripper": gripper, "mean": (0.0,) * fields, "std": (1.0,) * fields},
        "distance": {"tolerance": 0.05, "far": 10.0},
        "surprise": {"levels": (0.5, 0.9, 1.0), "errors": (0.1, 0.2, 0.4), "threshold": 0.8},
        "robots": ("openarm",),
    }
    return ModelConfig.model_validate(values | changes)


def fresh(made: ModelConfig, seed: int = 0):
    """Model and policy in evaluation mode with random weights."""
    torch.manual_seed(seed)
    modules = build_model(made, Path("nowhere"))
    for module in modules:
        module.eval().requires_grad_(False)
    return modules


class Shifts(PredictiveModel):
    """A world whose latent is the tool's position over SCALE, and whose joints never move."""

    latent_shape, history = (2,), 2

    def predict(self, latents, states, actions):
        return latents + actions.unflatten(-1, (-1, 2)).sum(-2) * (0.2 * 0.1 / SCALE), states


def latent_of(xy) -> torch.Tensor:
    """What the encoder of `Shifts` would see with the tool at xy (2,) m."""
    return torch.as_tensor(np.asarray(xy) / SCALE, dtype=torch.float32)


def knowing(joints) -> Checkpoint:
    """A checkpoint of `Shifts`, with a policy that has learnt nothing."""
    made = config(joints, latent=2)
    _, policy = fresh(made)
    return Checkpoint(made, Shifts(), policy, "0" * 16, Path("nowhere"))
