"""Small models of family dino_wm for tests."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.world_model.checkpoint import build_model
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.dino_wm.model import PatchWorldModel
from jepa_ros.world_model.frozen_encoder import weights_digest

torch.set_num_threads(1)
SIDE, WIDTH, PIXELS = 3, 16, 12
TOKENS = SIDE * SIDE


class Patches(nn.Module):
    """An encoder of square patches."""

    def __init__(self, tokens=TOKENS, width=WIDTH):
        super().__init__()
        self.tokens, self.width = tokens, width
        self.embed = nn.Conv2d(3, width, PIXELS // SIDE, PIXELS // SIDE)

    def forward(self, images):
        return F.layer_norm(self.embed(images).flatten(2).transpose(1, 2), (self.width,))


def config(conditioning="adaln", positions="rope", states=3, latent_shape=(TOKENS, WIDTH), **predictor) -> ModelConfig:
    sizes = {"depth": 2, "heads": 2, "head_dim": 12, "mlp": 32, "dropout": 0.0, "action_width": 4, "state_width": 5}
    return ModelConfig.model_validate(
        {
            "family": "dino_wm",
            "name": "small",
            "encoder": {"type": "transformers", "sha256": "0"},
            "predictor": {"type": "patch", "conditioning": conditioning, "positions": positions} | sizes | predictor,
            "latent_shape": latent_shape,
            "preprocessing": {"size": PIXELS},
            "history": 3,
            "control_rate": 10.0,
            "block": 2,
            "action": {"name": "planar_velocity", "dimension": 2},
            "proprioception": {
                "gripper": tuple(f"g{i}" for i in range(states)),
                "mean": (0.0,) * states,
                "std": (1.0,) * states,
            },
            "distance": {"tolerance": 0.1, "far": 1.0},
            "surprise": {"levels": (0.5,), "errors": (0.1,), "threshold": 0.2},
        }
    )


def model(*args, **changes) -> PatchWorldModel:
    """In evaluation mode, every weight of the predictor random: fresh ones ignore the action on purpose."""
    torch.manual_seed(0)
    made = PatchWorldModel(Patches(), config(*args, **changes))
    for parameter in made.predictor.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def window(states=3, steps=3, situations=2):
    rng = torch.Generator().manual_seed(1)
    shapes = ((TOKENS, WIDTH), (states,), (4,))
    return [torch.randn(situations, steps, *shape, generator=rng) for shape in shapes]


def from_directory(directory, conditioning="adaln") -> PatchWorldModel:
    """A model on a DINOv2 of random weights, saved and read in transformers' format."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 1}
    dinov2 = transformers.Dinov2Config(image_size=PIXELS, patch_size=PIXELS // SIDE, **sizes)
    transformers.Dinov2Model(dinov2).save_pretrained(directory / "encoder")
    return build_model(made_config(directory, conditioning), directory)[0]


def made_config(directory, conditioning) -> ModelConfig:
    """That names the encoder in `directory`."""
    given = config(conditioning).model_dump()
    given["encoder"]["sha256"] = weights_digest(directory / "encoder")
    return ModelConfig.model_validate(given)
