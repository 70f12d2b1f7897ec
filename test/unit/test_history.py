"""Latents, states and actions by stamp."""

import numpy as np
import pytest
import torch

from helpers import small_models  # noqa: F401  (one torch thread)
from jepa_ros.world_model.history import ActionHistory, LatentHistory, StateHistory

T0 = 1_700_000_000.0
FRAME = 1 / 15


@pytest.fixture
def latents():
    made = LatentHistory(keep=2.0)
    for k in range(20):
        assert made.add(T0 + k * FRAME, torch.tensor([float(k)]))
    return made


def values(window):
    """The numbers of latents of shape (1,)."""
    return [latent.item() for latent in window]


def test_a_latent_window_takes_the_nearest_frames_one_step_apart(latents):
    newest = T0 + 19 * FRAME
    # 0.4 s are six frames
    assert values(latents.window(newest, 3, 0.4)) == [7.0, 13.0, 19.0]
    # 0.1 s is one frame and a half, and a third of a frame is near enough
    assert values(latents.window(newest - FRAME / 3, 2, 0.4)) == [13.0, 19.0]


def test_latents_are_found_within_half_a_frame_period(latents):
    last = T0 + 19 * FRAME
    assert latents.at(last + 0.45 * FRAME).item() == 19.0
    assert latents.at(last + 0.55 * FRAME) is None
    assert latents.at(T0 - 0.55 * FRAME) is None
    assert latents.window(last + 0.55 * FRAME, 2, 0.4) is None


def test_the_oldest_latent_replaces_missing_older_ones(latents):
    early = LatentHistory(keep=2.0)
    for k in range(4):
        early.add(T0 + k * FRAME, torch.tensor([float(k)]))
    assert values(early.window(T0 + 3 * FRAME, 3, 0.1))[2] == 3.0
    assert values(early.window(T0 + 3 * FRAME, 3, 0.4)) == [3.0, 3.0, 3.0]
    assert values(early.window(T0 + 3 * FRAME, 3, 0.2)) == [0.0, 0.0, 3.0]


def test_a_backward_time_jump_clears_the_latents(latents):
    assert not latents.add(T0 + 5 * FRAME, torch.tensor([50.0]))
    assert len(latents) == 1 and latents.newest == T0 + 5 * FRAME
    assert values(latents.window(T0 + 5 * FRAME, 2, 0.4)) == [50.0, 50.0]


def test_old_latents_are_removed(latents):
    for k in range(20, 100):
        latents.add(T0 + k * FRAME, torch.tensor([float(k)]))
    assert len(latents) == 31
    assert latents.at(T0 + 60 * FRAME) is None


def test_an_empty_history():
    empty = LatentHistory(keep=1.0)
    assert empty.newest is None and empty.at(T0) is None and empty.window(T0, 2, 0.4) is None


def test_states_are_interpolated():
    states = StateHistory(keep=1.0)
    for k in range(11):
        states.add(T0 + 0.02 * k, np.array([k, -2.0 * k]))
    np.testing.assert_allclose(states.at(T0 + 0.05), [2.5, -5.0], atol=1e-4)
    np.testing.assert_allclose(states.at(T0 + 0.04), [2.0, -4.0], atol=1e-4)
    np.testing.assert_array_equal(states.at(T0 - 0.09), [0.0, 0.0])
    np.testing.assert_array_equal(states.at(T0 + 0.29), [10.0, -20.0])
    assert states.at(T0 - 0.11) is None and states.at(T0 + 0.31) is None
    np.testing.assert_array_equal(states.latest, [10.0, -20.0])


def test_a_backward_time_jump_clears_the_states():
    states = StateHistory(keep=1.0)
    states.add(T0 + 1.0, np.array([1.0]))
    assert not states.add(T0, np.array([5.0]))
    assert states.at(T0 + 0.5) is None and states.latest == [5.0] and states.newest == T0


def actions(starts, keep=3.0):
    made = ActionHistory(keep, 0.1)
    for k, start in enumerate(starts):
        made.add(T0 + start, np.array([k, 10.0]))
    return made


def test_actions_at_their_ticks_are_returned():
    found = actions(np.arange(8) * 0.1).between(T0 + 0.2, 3)
    np.testing.assert_allclose(found, [[2, 10], [3, 10], [4, 10]], atol=1e-4)


def test_actions_between_ticks_interpolate_the_path():
    # from 0.03 s into tick 2: 70 % of it and 30 % of tick 3, and so on
    found = actions(np.arange(8) * 0.1).between(T0 + 0.23, 2)
    np.testing.assert_allclose(found, [[0.7 * 2 + 0.3 * 3, 10], [0.7 * 3 + 0.3 * 4, 10]], atol=1e-4)


@pytest.mark.parametrize("start, ticks", [(-0.05, 2), (0.65, 2), (0.1, 8), (5.0, 1)])
def test_actions_outside_the_known_time(start, ticks):
    assert actions(np.arange(8) * 0.1).between(T0 + start, ticks) is None
    assert ActionHistory(1.0, 0.1).between(T0, 1) is None


def test_an_action_gap_hides_only_the_time_around_it():
    with_gap = actions([0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0])
    assert with_gap.between(T0 + 0.2, 3) is None
    assert with_gap.between(T0 + 0.35, 1) is None
    assert with_gap.between(T0 + 0.65, 1) is None
    np.testing.assert_allclose(with_gap.between(T0 + 0.8, 3), [[5, 10], [6, 10], [7, 10]], atol=1e-4)
    np.testing.assert_allclose(with_gap.between(T0 + 0.1, 3), [[1, 10], [2, 10], [3, 10]], atol=1e-4)


def test_a_backward_time_jump_clears_the_actions():
    made = actions([0.0, 0.1, 0.2])
    made.add(T0 - 1.0, np.array([7.0, 7.0]))
    assert made.between(T0, 2) is None
    np.testing.assert_allclose(made.between(T0 - 1.0, 1), [[7.0, 7.0]])
