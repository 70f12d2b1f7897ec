"""Training in bfloat16: the same losses but for rounding, and weights that stay float32."""

import pytest
import torch

from helpers import small_models, square_episodes
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.training.train_model import Trainer
from jepa_ros.world_model.anti_collapse import SigReg

CONFIG = small_models.config(latent=4)


def losses(precision):
    model, _ = small_models.fresh(CONFIG)
    schedule = Schedule(updates=6, batch=16, steps=3, warm_up=1, every=6, precision=precision)
    weights = LossWeights(directions=16)
    made = Trainer(CONFIG, model.requires_grad_(True), SigReg(16), square_episodes.sets(), schedule, weights, seed=0)
    found = [made.step()["loss"] for _ in range(6)]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return found


def test_bfloat16_training_follows_float32():
    exact, rounded = losses("float32"), losses("bfloat16")
    assert rounded == pytest.approx(exact, rel=0.1) and rounded != exact
    assert rounded[-1] < rounded[0]
