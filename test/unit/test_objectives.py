"""Optional losses: what they are least for, and where their gradients flow."""

import pytest
import torch
from torch import nn

from helpers import small_lewm
from jepa_ros.errors import InputError
from jepa_ros.training.losses import InverseDynamics, Rollout, Straightening
from jepa_ros.world_model.protocol import Context, PredictiveModel

torch.set_num_threads(1)


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Drifts(PredictiveModel):
    """Every action moves the latent by `gain` times itself, and the state by nothing."""

    history = 2

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(float(gain)))

    def predict(self, latents, states, actions):
        return latents + self.gain * actions, states


def moved(actions):
    """Latents (B, T + 1, 3) of a world whose gain is 1."""
    return torch.cat([torch.zeros(len(actions), 1, 3), actions.cumsum(1)], dim=1)


def rollout(model, actions, error="l2"):
    latents = moved(actions)
    h = model.history
    context = Context(latents[:, :h], torch.zeros(len(actions), h, 2), actions[:, : h - 1])
    return Rollout(error)(model, context, actions[:, h - 1 :], latents[:, h:])


@pytest.mark.parametrize("error", ("l1", "l2"))
def test_the_rollout_loss_is_zero_if_exact_and_accumulates_errors(error):
    actions = gaussian(5, 5, 3)
    assert rollout(Drifts(1.0), actions, error)[0] < 1e-6
    loss, states = rollout(Drifts(1.5), actions, error)
    off = 0.5 * actions[:, 1:].cumsum(1)[:, 1:]  # steps 2 to 4 of what is imagined
    assert float(loss) == pytest.approx(float(off.abs().mean() if error == "l1" else off.square().mean()), rel=1e-5)
    assert states.shape == (5, 4, 2)


def test_the_rollout_loss_excludes_the_first_step():
    """A wrong first target changes nothing."""
    actions, model = gaussian(5, 3, 3), Drifts(1.0)
    latents = moved(actions)
    context = Context(latents[:, :2], torch.zeros(5, 2, 2), actions[:, :1])
    targets = latents[:, 2:].clone()
    targets[:, 0] += 9.0
    assert Rollout()(model, context, actions[:, 1:], targets)[0] < 1e-6


def test_rollout_loss_gradients_flow_through_every_step():
    """d/dgain of the last step's error counts each action on the way."""
    model, actions = Drifts(1.5), gaussian(5, 3, 3)
    loss, _ = rollout(model, actions)
    loss.backward()
    way = actions[:, 1:].sum(1)
    assert float(model.gain.grad) == pytest.approx(float((2 * 0.5 * way.square()).mean()), rel=1e-5)


def test_a_rollout_loss_of_one_step_is_refused():
    with pytest.raises(InputError, match="rollout loss: needs at least 2 steps, found 1"):
        rollout(Drifts(1.0), gaussian(5, 2, 3))


def test_the_rollout_loss_trains_encoder_and_predictor():
    model, windows = small_lewm.fresh(), small_lewm.windows(6, 5)
    latents = model.encode(windows["frames"].flatten(0, 1)).unflatten(0, (6, 5))
    h = model.history
    context = Context(latents[:, :h], windows["states"][:, :h], windows["actions"][:, : h - 1])
    loss, _ = Rollout()(model, context, windows["actions"][:, h - 1 :], latents[:, h:])
    loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


@pytest.mark.parametrize("tokens", (0, 3))
def test_inverse_dynamics_recovers_actions_only_if_the_latents_show_them(tokens):
    config = small_lewm.config()
    actions = gaussian(64, 3, small_lewm.ACTION)
    shown = torch.cat([torch.zeros(64, 1, small_lewm.ACTION), actions.cumsum(1)], dim=1)
    shown = nn.functional.pad(shown, (0, small_lewm.LATENT - small_lewm.ACTION))
    least = {}
    for name, latents in {"shown": shown, "hidden": gaussian(*shown.shape, seed=1)}.items():
        latents = latents.unsqueeze(-2).expand(-1, -1, tokens, -1) if tokens else latents
        torch.manual_seed(0)
        head = InverseDynamics(config, width=16)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        for _ in range(200):
            loss = head(latents, actions)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        least[name] = loss.item()
    assert least["shown"] < 0.1 < 0.4 < least["hidden"]


def test_inverse_dynamics_gradients_reach_both_latents():
    latents = gaussian(4, 2, small_lewm.LATENT).requires_grad_()
    InverseDynamics(small_lewm.config())(latents, gaussian(4, 1, small_lewm.ACTION, seed=1)).backward()
    assert (latents.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("shape", ((6,), (3, 2)))
def test_the_straightening_loss_is_zero_for_straight_paths(shape):
    along, across = gaussian(2, 6).unsqueeze(1)
    across = across - (across @ along.T) / along.square().sum() * along
    across = across * along.norm() / across.norm()
    steps = torch.arange(5.0)[:, None]
    ways = {
        "line": (steps**2 * along, 0.0),
        "right angles": (torch.cat([k * along + m * across for k, m in ((0, 0), (1, 0), (1, 1), (2, 1))]), 1.0),
        "back and forth": ((steps % 2) * along, 2.0),
        "at rest": (torch.zeros(4, 6), 1.0),
    }
    for name, (way, cost) in ways.items():
        assert float(Straightening()(way.view(1, -1, *shape))) == pytest.approx(cost, abs=1e-5), name


def test_straightening_has_finite_gradients_even_at_rest():
    latents = torch.zeros(2, 4, 6, requires_grad=True)
    Straightening()(latents).backward()
    assert torch.isfinite(latents.grad).all()
    bent = gaussian(2, 4, 6).requires_grad_()
    first = Straightening()(bent)
    first.backward()
    assert Straightening()((bent - 0.1 * bent.grad).detach()) < first


def test_straightening_needs_at_least_three_frames():
    with pytest.raises(ValueError, match="at least 3 consecutive latents, found 2"):
        Straightening()(gaussian(2, 2, 6))
