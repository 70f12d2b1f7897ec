"""Windows of episodes, their sampling, and the normalisation of proprioception."""

import numpy as np
import pytest

from jepa_ros.datasets.episodes import Episode, EpisodeSet, normalisation
from jepa_ros.errors import InputError

BLOCK, HISTORY = 4, 2


def episode(ticks, number, split="train", scale=1.0):
    """Every value tells its episode and tick: frames in their corner pixel, the others as number + tick / 100."""
    frames = np.zeros((ticks + 1, 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = number, np.arange(ticks + 1)
    value = number + np.arange(ticks + 1)[:, None] / 100
    return Episode(
        frames, (scale * value * [1.0, 2.0, 0.0]).astype(np.float32), value[:-1] * [1, -1], value * [1, 1], split
    )


@pytest.fixture
def data():
    return EpisodeSet([episode(30, 1), episode(9, 2), episode(20, 3)], np.zeros(3), np.ones(3))


def test_windows_contain_the_right_frames_states_and_actions(data):
    windows = data.windows(np.array([0, 2]), np.array([10, 5]), steps=2, block=BLOCK, history=HISTORY)
    assert windows.frames.shape == (2, 4, 8, 8, 3)
    assert windows.frames[:, :, 0, 0, 0].tolist() == [[1] * 4, [3] * 4]
    assert windows.frames[:, :, 0, 0, 1].tolist() == [[6, 10, 14, 18], [1, 5, 9, 13]]
    np.testing.assert_allclose(windows.states[0, :, 0], [1.06, 1.10, 1.14, 1.18], atol=1e-6)
    np.testing.assert_allclose(windows.states[1, :, 0], [3.01, 3.05, 3.09, 3.13], atol=1e-6)
    assert windows.actions.shape == (2, 3, 8)
    np.testing.assert_allclose(windows.actions[0, 2, 0::2], [1.14, 1.15, 1.16, 1.17], atol=1e-6)
    np.testing.assert_allclose(windows.actions[1, 0, 1::2], [-3.01, -3.02, -3.03, -3.04], atol=1e-6)


def test_history_before_the_first_frame_repeats_the_first_frame(data):
    windows = data.windows(np.array([1, 2]), np.array([0, 3]), steps=1, block=BLOCK, history=3)
    assert windows.frames[:, :, 0, 0, 1].tolist() == [[0, 0, 0, 4], [0, 0, 3, 7]]
    assert windows.frames[:, :, 0, 0, 0].tolist() == [[2] * 4, [3] * 4]


def test_actions_before_the_first_frame_are_zero(data):
    windows = data.windows(np.array([1, 2]), np.array([0, 3]), steps=1, block=BLOCK, history=3)
    assert not windows.actions[0, :2].any()
    np.testing.assert_allclose(windows.actions[0, 2, 0::2], [2.00, 2.01, 2.02, 2.03], atol=1e-6)
    np.testing.assert_allclose(windows.actions[1, 1, 0::2], [0.0, 3.00, 3.01, 3.02], atol=1e-6)


def test_frames_and_actions_are_aligned_by_row(data):
    rows = data.index(np.array([0, 1, 2]), np.array([29, 8, 19]))
    np.testing.assert_allclose(data.actions[rows][:, 0], [1.29, 2.08, 3.19], atol=1e-6)
    assert data.frames[rows][:, 0, 0, 1].tolist() == [29, 8, 19]
    assert len(data) == 31 + 10 + 21 == len(data.actions) and data.lengths.tolist() == [30, 9, 20]


def test_sampling_covers_all_valid_windows_and_no_others(data):
    steps = 4  # 16 ticks: the second episode is too short
    windows = data.windows(*data.draw(3000, steps * BLOCK, np.random.default_rng(0)), steps, BLOCK, HISTORY)
    number, last = windows.frames[:, -1, 0, 0, 0].numpy(), windows.frames[:, -1, 0, 0, 1].numpy()
    starts = {(int(n), int(t) - steps * BLOCK) for n, t in zip(number, last, strict=True)}
    assert starts == {(1, t) for t in range(15)} | {(3, t) for t in range(5)}
    assert np.mean(number == 1) == pytest.approx(15 / 20, abs=0.05)


def test_the_same_generator_seed_samples_the_same_windows(data):
    first, again = (data.draw(8, 2 * BLOCK, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_too_short_episodes_are_refused_with_the_required_length(data):
    with pytest.raises(InputError, match="expected one of at least 31 ticks, found at most 30"):
        data.draw(1, 31, np.random.default_rng(0))


def test_normalisation_uses_training_episodes_only():
    train, other = [episode(30, 1), episode(20, 3)], [episode(40, 9, "val", 50.0), episode(40, 9, "test", 50.0)]
    mean, std = normalisation(train + other)
    states = np.concatenate([e.states for e in train])
    np.testing.assert_allclose(mean, states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std[:2], states.std(0)[:2], rtol=1e-5)
    assert std[2] == 1.0, "a field that never changes"
    normalised = EpisodeSet(train, mean, std).states
    np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(0), [1, 1, 0], atol=1e-5)
