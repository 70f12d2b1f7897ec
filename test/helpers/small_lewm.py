"""A LeWM of a few thousand weights for frames of 16 x 16 pixels, and windows of noise to feed it."""

import torch

from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.lewm.model import LeWM

SIZE, HISTORY, LATENT, FIELDS, ACTION = 16, 2, 6, 4, 4


def config(**changes) -> ModelConfig:
    values = {
        "name": "small",
        "encoder": {"type": "conv", "channels": (4, 8)},
        "predictor": {
            "type": "causal",
            "width": 8,
            "depth": 1,
            "heads": 2,
            "head_dim": 4,
            "mlp": 16,
            "dropout": 0.0,
            "residual": True,
        },
        "projector_hidden": 16,
        "latent_shape": (LATENT,),
        "preprocessing": {"size": SIZE},
        "history": HISTORY,
        "control_rate": 10.0,
        "block": 2,
        "action": {"name": "planar_velocity", "dimension": 2},
        "proprioception": {"joints": ("a", "b"), "mean": (0.0,) * FIELDS, "std": (1.0,) * FIELDS},
        "distance": {"tolerance": 0.1, "far": 1.0},
        "surprise": {"levels": (0.5,), "errors": (0.1,), "threshold": 0.2},
    }
    return ModelConfig.model_validate(values | changes)


def fresh(seed: int = 0) -> LeWM:
    """In training mode, with weights that the seed decides; the zeros that AdaLN begins with are disturbed."""
    torch.manual_seed(seed)
    model = LeWM(config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def windows(batch: int, steps: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """frames (B, T, S, S, 3) uint8, states (B, T, P), actions (B, T - 1, K)."""
    g = torch.Generator().manual_seed(seed)
    return {
        "frames": torch.randint(256, (batch, steps, SIZE, SIZE, 3), generator=g, dtype=torch.uint8),
        "states": torch.randn(batch, steps, FIELDS, generator=g),
        "actions": torch.randn(batch, steps - 1, ACTION, generator=g),
    }
