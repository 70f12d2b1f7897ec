"""Training: losses fall, and an interrupted run goes on to exactly the same ones."""

import signal

import numpy as np
import pytest
import torch

from helpers import small_models, square_episodes
from jepa_ros.evaluation.model_health import encode_frames, measure_latents, measure_prediction, measure_probe_r2
from jepa_ros.training.losses import WorldModelLoss
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.training.train_model import Trainer, calibrate_surprise
from jepa_ros.training.trainer import learning_rate_factor
from jepa_ros.world_model.anti_collapse import SigReg
from jepa_ros.world_model.protocol import PredictiveModel

CONFIG = small_models.config(latent=4)
SCHEDULE = Schedule(
    updates=40,
    batch=16,
    steps=3,
    warm_up=5,
    every=20,
)
WEIGHTS = LossWeights(directions=16)


@pytest.fixture(scope="module")
def data():
    return square_episodes.sets()


def trainer(data, seed=0, weights=0):
    model, _ = small_models.fresh(CONFIG, weights)
    return Trainer(CONFIG, model.requires_grad_(True), SigReg(WEIGHTS.directions), data, SCHEDULE, WEIGHTS, seed)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that was never interrupted, and its losses."""
    made, losses = trainer(data), []
    made.run(tmp_path_factory.mktemp("whole") / "trainer.state", losses.append)
    return made, losses


def test_the_training_loss_falls(whole):
    _, losses = whole
    first, last = (np.mean([v["loss"] for v in part]) for part in (losses[:5], losses[-5:]))
    assert last < 0.8 * first
    assert [v["update"] for v in losses] == list(range(1, 41))


def test_a_resumed_run_gives_the_same_losses(data, whole, tmp_path):
    class Interrupt(Exception):
        pass

    done, losses = whole
    first, seen, state = trainer(data), [], tmp_path / "trainer.state"

    def note(values):
        seen.append(values)
        if values["update"] == 23:
            raise Interrupt

    with pytest.raises(Interrupt):
        first.run(state, note, save_every=0.0)
    assert first.progress.update == 23
    second = trainer(data, weights=99)  # other weights: all must come from the file
    second.load(state)
    at = second.progress.update
    assert at == 22, "the last state that was saved"
    second.run(state, seen.append)
    resumed = seen[:at] + seen[at + 1 :]
    assert resumed == losses
    assert second.progress.validation == done.progress.validation and second.progress.curve == done.progress.curve
    for name, tensor in done.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_ctrl_c_finishes_the_current_update_and_loses_none(data, whole, tmp_path):
    _, losses = whole
    seen, state = [], tmp_path / "trainer.state"

    def note(values):
        seen.append(values)
        if values["update"] == 7:
            signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test run in the background lacks
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer(data).run(state, note)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    second = trainer(data, weights=99)
    second.load(state)
    second.run(state, seen.append)
    assert seen == losses


def test_a_finished_run_is_not_trained_again(data, whole, tmp_path):
    done, _ = whole
    done.save(tmp_path / "state")
    again = trainer(data, weights=99)
    again.load(tmp_path / "state")
    again.run(tmp_path / "state", lambda values: pytest.fail("it trained"))
    for name, tensor in done.best.items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_the_weights_of_the_best_validation_are_kept(data):
    made = trainer(data)
    kept = []
    for score in (3.0, 1.0, 2.0):
        made.step()
        kept.append({k: v.clone() for k, v in made.model.state_dict().items()})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "jepa_ros.training.train_model.measure_prediction",
                lambda *a, s=score: {f"error_ratio@{k}": s for k in (1, 2, 3)},
            )
            made.validate()
    assert made.progress.best == 1.0
    assert all(torch.equal(made.best[name], kept[1][name]) for name in made.best)


def test_a_nan_loss_stops_the_run(data):
    made = trainer(data)
    with torch.no_grad():
        made.model.predictor.input_projection.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="update 0: the loss is nan"):
        made.step()


def test_the_seed_determines_the_losses(data):
    one, same, other = (trainer(data, seed).step()["loss"] for seed in (0, 0, 1))
    assert one == same != other


def test_gradients_reach_encoder_and_predictor_without_labels(data):
    made = trainer(data)
    model, train = made.model, data["train"]
    windows = train.windows(*train.draw(8, 12, np.random.default_rng(0)), 3, 4, 2)
    loss, parts = made.loss(model, windows, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.projector.layers[-1].weight.grad.abs().max() > 0
    states = WEIGHTS.proprioception * (parts["proprioception"] + parts["state_rollout"])
    total = parts["one_step"] + parts["rollout"] + states + WEIGHTS.anti_collapse * parts["anti_collapse"]
    torch.testing.assert_close(parts["loss"], total)


def test_optional_losses_add_up_and_are_trained(data):
    weights = LossWeights(directions=16, rollout=0.0, proprioception=0.0, inverse_dynamics=0.5, straightening=0.3)
    model, _ = small_models.fresh(CONFIG)
    loss = WorldModelLoss(CONFIG, weights, SigReg(16), 3)
    train = data["train"]
    windows = train.windows(*train.draw(8, 12, np.random.default_rng(0)), 3, 4, 2)
    total, parts = loss(model.requires_grad_(True), windows, torch.Generator().manual_seed(0))
    wanted = parts["one_step"] + 0.1 * parts["anti_collapse"]
    torch.testing.assert_close(total, wanted + 0.5 * parts["inverse_dynamics"] + 0.3 * parts["straightening"])
    total.backward()
    assert all(p.grad.abs().max() > 0 for p in loss.inverse_dynamics.parameters())


def test_a_collapse_stops_training_with_the_reason(data, tmp_path):
    made = trainer(data)
    flat = {"effective_rank": 1.2, "dead_dimensions": 0.0, "spread": 0.5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jepa_ros.training.train_model.measure_latents", lambda latents: flat)
        made.validate_every = 5
        made.run(tmp_path / "state", lambda values: None)
    assert made.progress.update == 10, "at the second validation in a row"
    assert "update 10: collapsed: the latents lie on a line (effective rank 1.20)" == made.progress.stopped


class Knows(PredictiveModel):
    """Encodes the square's place, and predicts it from the actions."""

    latent_shape, history = (2,), 2

    def encode(self, frames):
        return Place()(torch.as_tensor(frames).permute(0, 3, 1, 2) - 127.5)

    def predict(self, latents, states, actions):
        return latents + actions.unflatten(-1, (4, 2)).sum(-2), states


class Place(torch.nn.Module):
    def forward(self, images):
        bright = (images.mean(1) > 0).float()
        along = torch.arange(16.0) + 0.5
        mass = bright.sum((1, 2))
        return torch.stack([(bright.sum(1) * along).sum(1) / mass, (bright.sum(2) * along).sum(1) / mass], 1)


def test_an_exact_model_has_good_health_metrics(data):
    model, val = Knows(), data["val"]
    latents = encode_frames(model, val.frames, batch=7)
    assert latents.shape == (50, 2)
    np.testing.assert_allclose(latents.numpy(), val.tool, atol=0.51)
    health = measure_prediction(model, val, latents, 3, 4, seed=0)
    assert health["error_ratio@1"] < 0.1 and health["error_ratio@3"] < 0.1 and health["action_sensitivity"] > 10
    assert measure_probe_r2(latents, val.tool, latents, val.tool) > 0.95
    surprise = calibrate_surprise(model, latents, val, 4)
    assert list(surprise.errors) == sorted(surprise.errors) and surprise.threshold == 2 * surprise.errors[-1]


def test_collapsed_latents_are_detected():
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(500, 8, generator=generator)
    line = torch.randn(500, 1, generator=generator) * torch.randn(1, 8, generator=generator)
    assert measure_latents(healthy)["effective_rank"] > 7
    assert measure_latents(line)["effective_rank"] < 1.1
    healthy[:, :2] *= 0.01
    assert measure_latents(healthy)["dead_dimensions"] == 0.25


def test_the_learning_rate_warms_up_and_falls_to_zero():
    factors = [learning_rate_factor(k, 100, 10) for k in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) > 0.95 and factors[-1] == 0.0
    assert np.argmax(factors) == 9 and (np.diff(factors[9:]) <= 0).all()
