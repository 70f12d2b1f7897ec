"""The learned distance: 0 at the goal, growing with the way, and that of direct ways rather than of detours."""

import numpy as np
import pytest
import torch

from helpers import small_models
from jepa_ros.datasets.episodes import Episode, EpisodeSet
from jepa_ros.errors import InputError
from jepa_ros.planning.policy import PolicyOnlyPlanner
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.training.heads import fit_heads
from jepa_ros.training.losses import draw_pairs
from jepa_ros.training.recipe import Schedule
from jepa_ros.training.report import evaluate_heads
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import ReachabilityConfig
from jepa_ros.world_model.heads import FACTOR_RANGE, Reachability

SPEED = 0.02  # m a tick


def fresh(states=3):
    torch.manual_seed(0)
    return Reachability(4, states, 16, 8, 40).eval()


def test_the_learned_distance_is_zero_at_the_goal_and_never_negative():
    generator = torch.Generator().manual_seed(1)
    z, goal, state = (torch.randn(50, n, generator=generator) for n in (4, 4, 3))
    head = fresh()
    assert (head(z, z, state) <= 1e-4).all() and (head(z, z, state) >= 0).all()
    assert (head(z, goal, state) > 0).all()


def test_the_gradient_of_the_distance_is_finite_at_the_goal():
    z = torch.ones(2, 4, requires_grad=True)
    fresh()(z, torch.ones(2, 4), torch.zeros(2, 3)).sum().backward()
    assert torch.isfinite(z.grad).all()


def test_one_goal_applies_to_all_situations():
    z, goal, state = torch.randn(5, 4), torch.randn(1, 4), torch.randn(5, 3)
    torch.testing.assert_close(fresh()(z, goal, state), fresh()(z, goal.expand(5, -1), state))


def test_it_works_without_proprioception():
    assert fresh(states=0)(torch.randn(3, 4), torch.randn(3, 4), torch.zeros(3, 0)).shape == (3,)


def test_the_triangle_inequality_holds_up_to_the_speed_factor():
    head, still = fresh(), torch.zeros(40, 3)
    a, b, c = (torch.randn(40, 4, generator=torch.Generator().manual_seed(k)) for k in range(3))
    direct, over = head(a, c, still), head(a, b, still) + head(b, c, still)
    assert (direct <= over * (1 + FACTOR_RANGE) / (1 - FACTOR_RANGE) + 1e-5).all()


def play(seed, split, ticks=60):
    """A point that wanders over the plane at up to SPEED a tick; its latent is where it is."""
    rng = np.random.default_rng(seed)
    angle = np.repeat(rng.uniform(0, 2 * np.pi, ticks // 6 + 1), 6)[:ticks]
    speed = np.repeat(rng.uniform(0.3, 1.0, ticks // 6 + 1), 6)[:ticks, None]
    actions = (speed * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)
    places = np.vstack([np.zeros(2), np.cumsum(SPEED * actions, 0)]) + rng.uniform(-0.2, 0.2, 2)
    frames = np.zeros((ticks + 1, 1, 1, 3), np.uint8)
    return Episode(frames, np.zeros((ticks + 1, 0), np.float32), actions, places, split)


@pytest.fixture(scope="module")
def trained():
    """Heads on a world whose latent is the place over small_models.SCALE, with what they were trained on."""
    config = small_models.config(
        (), latent=2, policy={"width": 32, "depth": 1}, reachability=ReachabilityConfig(width=32)
    )
    seeds = {"train": range(2000, 2060), "val": range(3000, 3008), "test": range(4000, 4008)}
    sets = {s: EpisodeSet([play(k, s) for k in own], np.zeros(0), np.ones(0)) for s, own in seeds.items()}
    latents = {s: torch.from_numpy(part.tool / small_models.SCALE).float() for s, part in sets.items()}
    schedule = Schedule(policy_updates=600, policy_batch=256, every=200, warm_up=20)
    heads = fit_heads(config, latents, sets, schedule, 0, ProgressDisplay(quiet=True))
    return config, heads, latents, sets


def test_it_grows_with_the_distance(trained):
    _, heads, latents, sets = trained
    figures = evaluate_heads(heads, latents["test"], sets["test"], 4, 0)
    assert figures["reachability_spearman"] > 0.9


def test_the_learned_distance_is_close_to_the_direct_path_in_ticks(trained):
    _, heads, _, _ = trained
    away = torch.tensor([[0.1, 0.0], [0.0, 0.2]]) / small_models.SCALE
    ticks = heads.reachability(away, torch.zeros(2, 2), torch.zeros(2, 0))
    assert (ticks > torch.tensor([3.0, 6.0])).all() and (ticks < torch.tensor([10.0, 20.0])).all(), ticks


def test_training_pairs_are_from_one_episode_in_time_order(trained):
    _, _, _, sets = trained
    part = sets["val"]
    now, ticks = draw_pairs(part, 2000, 30, 4, 4, torch.Generator().manual_seed(0))
    episode = np.repeat(np.arange(8), 61)
    assert (episode[now] == episode[now + ticks]).all()
    assert ticks.min() == 0 and ticks.max() == 30
    assert (ticks <= 8).float().mean() > 0.4, "near ones count"
    assert ((now.numpy() % 61) <= 56).all(), "an action block follows"


def alone(trained):
    config, heads, _, _ = trained
    model = small_models.Shifts()
    return Checkpoint(config, model, heads.policy, "0" * 16, "nowhere", heads.reachability)


def context(xy):
    from jepa_ros.world_model.protocol import Context

    z = small_models.latent_of(xy).expand(1, 2, 2)
    return Context(z, torch.zeros(1, 2, 0), torch.zeros(1, 1, 8))


def test_the_policy_only_planner_arrives_and_stays(trained):
    decide, place, goal = (
        PolicyOnlyPlanner(alone(trained)).decide,
        np.array([0.15, -0.1]),
        small_models.latent_of([0.0, 0.0]),
    )
    for _ in range(40):
        actions = decide(context(place), goal, torch.zeros(0, 2), 2)
        place = place + SPEED * actions[:2].sum(0).numpy()
    assert np.linalg.norm(place) < 0.02
    assert decide(context([0.0, 0.0]), goal, torch.zeros(0, 2), 2).abs().max() < 0.3


def test_committed_actions_are_kept_and_the_last_action_continues(trained):
    promised = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.5], [0.6, 0.6], [0.7, 0.7]])
    far = small_models.latent_of([1.0, 0.0])
    for horizon in (1, 2, 5):
        actions = PolicyOnlyPlanner(alone(trained)).decide(context([0.0, 0.0]), far, promised, horizon)
        count = min(5, 4 * horizon)
        assert actions.shape == (4 * horizon, 2) and actions.abs().max() <= 1.0
        torch.testing.assert_close(actions[:count], promised[:count])
    assert actions[-1].abs().max() > 0, "the way is longer than the horizon"


@pytest.mark.parametrize("lacks", ["policy", "reachability"])
def test_policy_only_needs_the_heads(trained, lacks):
    from dataclasses import replace

    what = "policy" if lacks == "policy" else "learned distance"
    with pytest.raises(InputError, match=f"found no {what}.*train heads"):
        PolicyOnlyPlanner(replace(alone(trained), **{lacks: None}))
