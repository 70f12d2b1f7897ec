"""The world model: images in, latents out, roll-outs step by step."""

import numpy as np
import pytest
import tiny
import torch

from jepa_ros.world_model.jepa import as_images

CONFIG = tiny.config(latent=4, history=3, block=2)
MODEL, POLICY = tiny.fresh(CONFIG)
RNG = torch.Generator().manual_seed(0)
LATENTS = torch.randn(5, 3, 4, generator=RNG)
STATE = torch.randn(5, 4, generator=RNG)
ACTIONS = torch.rand(5, 6, 4, generator=RNG) * 2 - 1


def test_a_rollout_is_repeated_single_steps():
    rolled, states = MODEL.rollout_states(LATENTS, STATE, ACTIONS)
    history, state = LATENTS, STATE
    for step in range(6):
        latent, state = MODEL.predictor(history, state, ACTIONS[:, step])
        torch.testing.assert_close(rolled[:, step], latent)
        torch.testing.assert_close(states[:, step], state)
        history = torch.stack([history[:, 1], history[:, 2], latent], dim=1)
    torch.testing.assert_close(MODEL.rollout(LATENTS, STATE, ACTIONS), rolled)


def test_later_actions_do_not_change_earlier_predictions():
    changed = ACTIONS.clone()
    changed[:, 3:] = 0
    one, other = MODEL.rollout(LATENTS, STATE, ACTIONS), MODEL.rollout(LATENTS, STATE, changed)
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert (one[:, 3] - other[:, 3]).abs().max() > 1e-4


@pytest.mark.parametrize("what", ["oldest latent", "proprioception", "action"])
def test_every_input_counts(what):
    latents, state, actions = LATENTS.clone(), STATE.clone(), ACTIONS[:, :1].clone()
    {"oldest latent": latents[:, 0], "proprioception": state, "action": actions}[what].add_(1.0)
    before = MODEL.rollout(LATENTS, STATE, ACTIONS[:, :1])
    assert (MODEL.rollout(latents, state, actions) - before).abs().max() > 1e-3


def test_frames_become_images_between_minus_one_and_one():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    frames[0, 2, 5] = (255, 0, 127)
    images = as_images(frames)
    assert images.shape == (1, 3, 16, 16)
    assert images[0, :, 2, 5].tolist() == pytest.approx([1.0, -1.0, 127 / 127.5 - 1])
    torch.testing.assert_close(as_images(torch.from_numpy(frames)), images)


def test_latents_do_not_depend_on_the_batch():
    frames = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), dtype=np.uint8)
    together = MODEL.encode(frames)
    assert together.shape == (7, 4)
    torch.testing.assert_close(torch.cat([MODEL.encode(f[None]) for f in frames]), together)


def test_the_policy_asks_for_no_more_time_than_it_learnt():
    longest = float(POLICY.max_ticks)
    goal = LATENTS[:, 1]
    answers = [POLICY(LATENTS[:, 0], goal, STATE, torch.full((5,), t)) for t in (0.5, 1.0, longest, 9 * longest)]
    torch.testing.assert_close(answers[0], answers[1])
    torch.testing.assert_close(answers[2], answers[3])
    assert (answers[1] - answers[2]).abs().max() > 1e-4
