"""Two processes train what one would train on the whole batch: same losses, same weights, same BatchNorm statistics."""

import pytest
import torch

from helpers import small_models, square_episodes
from helpers.two_ranks import on_each_rank
from jepa_ros.distributed import count_ranks
from jepa_ros.errors import InputError
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.training.train_model import Trainer
from jepa_ros.world_model.anti_collapse import make_anti_collapse

CONFIG = small_models.config(latent=4)
WEIGHTS = LossWeights(directions=16, inverse_dynamics=0.1, straightening=0.1)


def trainer(method, batch=12):
    model, _ = small_models.fresh(CONFIG)
    model.requires_grad_(True)
    schedule = Schedule(updates=3, batch=batch, steps=3, warm_up=1, every=3, learning_rate=0.05)
    regulariser = make_anti_collapse(method, model, CONFIG, updates=3)
    made = Trainer(CONFIG, model, regulariser, square_episodes.sets(), schedule, WEIGHTS, seed=0)
    # Adam's first steps are signs: where a gradient is 0 but for rounding, as before a BatchNorm, they tell nothing.
    made.optimizer = torch.optim.SGD(made.parameters, lr=0.05)
    return made


def three_updates(method):
    made = trainer(method)
    losses = [made.step() for _ in range(3)]
    return {"losses": losses, "weights": made.model.state_dict(), "own": made.loss.state_dict()}


def with_sigreg(rank):
    return three_updates("sigreg")


def with_teacher(rank):
    return three_updates("ema")


@pytest.mark.slow
@pytest.mark.parametrize("method, function", [("sigreg", with_sigreg), ("ema", with_teacher)])
def test_training_in_two_processes_equals_one_process_on_the_whole_batch(method, function, tmp_path):
    alone = three_updates(method)
    for found in on_each_rank(function, tmp_path):
        for step, wanted in zip(found["losses"], alone["losses"], strict=True):
            assert step == pytest.approx(wanted, rel=1e-4)
        for part in ("weights", "own"):
            for name, wanted in alone[part].items():
                torch.testing.assert_close(found[part][name], wanted, rtol=1e-4, atol=1e-5, msg=name)
    # The check can fail: BatchNorm's running mean is of the whole batch, which no half of it has.
    name = next(n for n in alone["weights"] if n.endswith("running_mean"))
    assert alone["weights"][name].abs().max() > 1e-3


def odd_batch(rank):
    try:
        trainer("sigreg", batch=13)
    except InputError as error:
        return str(error), count_ranks()
    return "", count_ranks()


@pytest.mark.slow
def test_a_batch_size_not_divisible_by_the_processes_is_refused(tmp_path):
    assert on_each_rank(odd_batch, tmp_path) == [("recipe: batch 13 is not a multiple of the 2 processes", 2)] * 2
