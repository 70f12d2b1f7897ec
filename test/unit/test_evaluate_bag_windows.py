"""Situations of a whole recording are those that the live nodes' histories give, frame by frame."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import small_models
from jepa_ros.evaluation.bag.metrics import prediction
from jepa_ros.evaluation.bag.reading.recording import EpochClock, EvaluationSpec, LatentStore, Recording
from jepa_ros.evaluation.bag.reading.situations import find_situations
from jepa_ros.world_model.history import ObservationHistory
from jepa_ros.world_model.surprise import SurpriseMonitor

S = 10**9
FIRST = 1_700_000_000 * S
JOINTS = ("a", "b")
HORIZON = 3
MILLISECOND = 0.011
"""Of a tick of 0.1 s, by which live histories let stamps jitter."""


def recording(frames, states, actions, episodes=(0.0,), latent=2, values=None, seed=0):
    """Times s of everything; random latents, states and actions where `values` (latents, actions) are not given."""
    rng = np.random.default_rng(seed)
    made = Recording(Path("bag"), LatentStore((latent,)))
    ns = lambda times: [FIRST + round(t * S) for t in times]  # noqa: E731
    latents = rng.normal(size=(len(frames), latent)) if values is None else values[0]
    made.latents.add(np.asarray(latents, np.float32))
    made.frame_stamps, made.frame_epochs = ns(frames), [0] * len(frames)
    for t, stamp in zip(states, ns(states), strict=True):
        made.states.add(stamp, 0, np.array([t, np.sin(t), 1.0, np.cos(t)]))
    done = rng.uniform(-1, 1, (len(actions), 2)) if values is None else values[1]
    for stamp, action in zip(ns(actions), done, strict=True):
        made.actions.add(stamp, 0, np.asarray(action))
    made.episodes = [(FIRST + round(t * S), 0) for t in episodes]
    return made


def situations_of(made, config, horizon, checkpoint=None):
    """The situations of a recording for a model of this configuration."""
    return find_situations(made, EvaluationSpec(checkpoint or SimpleNamespace(config=config), None, horizon=horizon))


def irregular(seed):
    """Jittering frames at 30 Hz and states, some of both missing; ticks at 10 Hz of which one is missing."""
    rng = np.random.default_rng(seed)
    frames = np.arange(0, 6, 1 / 30) + rng.uniform(0, 0.004, 180)
    frames = np.delete(frames, [*range(60, 66), 100])
    states = np.delete(np.arange(0, 6, 0.02), [*range(100, 120)])
    return recording(frames, states, np.delete(np.arange(0, 5.95, 0.1), 40), seed=seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("history", [1, 3])
def test_contexts_and_blocks_equal_those_of_the_live_nodes(seed, history):
    config = small_models.config(JOINTS, latent=2, history=history)
    made = irregular(seed)
    found = situations_of(made, config, HORIZON)
    (part,) = found.segments
    live = ObservationHistory(config)
    seen = dict(zip(found.frames.tolist(), range(len(found)), strict=True))
    compared = Counter()
    at = [0, 0]
    # A live history knows what comes after a moment no more than that: latents are kept for a few steps only, so that
    # the reader is asked as the frames come, actions one tick ahead as they are once they have been reported.
    for row, now in enumerate(part.times):
        while at[0] < len(part.state_times) and part.state_times[at[0]] <= now + 0.2:
            live.states.add(part.state_times[at[0]], part.states[at[0]])
            at[0] += 1
        while at[1] < len(part.action_starts) and part.action_starts[at[1]] <= now + 0.1:
            live.actions.add(part.action_starts[at[1]], part.actions[at[1]])
            at[1] += 1
        live.latents.add(now, made.latents.rows(part.rows[row]))
        before = now - config.step
        past = seen.get(int(part.rows[np.abs(part.times - before).argmin()]))
        context = live.context_at(now)
        if context is not None and now > 3.0 * config.step and abs(live.latents.tolerance() - part.tolerance) < 1e-3:
            mine = found.context(np.array([seen[row]]))
            torch.testing.assert_close(mine.latents, context.latents)
            torch.testing.assert_close(mine.states, context.states, atol=1e-5, rtol=1e-5)
            compared["context"] += 1
            blocks = [live.action_block(now - k * config.step) for k in range(history - 1, 0, -1)]
            if all(b is not None for b in blocks) and blocks:
                torch.testing.assert_close(mine.actions, context.actions, atol=MILLISECOND, rtol=0)
                compared["actions"] += 1
        block = live.action_block(part.times[np.abs(part.times - before).argmin()])
        if past is not None and block is not None:
            np.testing.assert_allclose(found.future[past, 0], block, atol=MILLISECOND)
            compared["block"] += 1
    assert compared["context"] > 80 and compared["block"] > 60 and (history == 1 or compared["actions"] > 60), compared


def test_prediction_targets_are_frames_whole_steps_later():
    config = small_models.config(JOINTS, latent=2)
    made = recording(np.arange(0, 4, 0.1), np.arange(0, 4, 0.02), np.arange(0, 4, 0.1))
    found = situations_of(made, config, HORIZON)
    assert found.targets[5].tolist() == [9, 13, 17] and found.known[5].all()
    assert found.targets[-1].tolist() == [-1, -1, -1] and not found.known[-1].any()
    assert found.targets[30].tolist() == [34, 38, -1] and found.known[30].tolist() == [True, True, False]


def test_no_prediction_spans_a_missing_action_or_an_episode_boundary():
    config = small_models.config(JOINTS, latent=2)
    times = np.arange(0, 4, 0.1)
    gap = recording(times, np.arange(0, 4, 0.02), np.delete(times, 20))
    found = situations_of(gap, config, 1)
    assert not found.known[17:21, 0].any() and found.known[[16, 21], 0].all()
    parted = recording(times, np.arange(0, 4, 0.02), times, episodes=(0.0, 2.0))
    found = situations_of(parted, config, 1)
    assert not found.known[16:20, 0].any() and found.known[[15, 20], 0].all()
    assert found.past[20].tolist() == [20, 20], "an episode begins at rest"


def test_motion_ends_with_the_last_tick_before_a_gap():
    config = small_models.config(JOINTS, latent=2)
    ticks = np.r_[np.arange(0, 1, 0.1), np.arange(3, 5, 0.1)]
    ones = np.ones((len(ticks), 2))
    times = np.arange(0, 5, 0.1)
    made = recording(times, np.arange(0, 5, 0.02), ticks, values=(np.zeros((50, 2)), ones))
    found = situations_of(made, config, 1)
    assert found.known[6, 0] and not found.known[7, 0] and found.known[30, 0]
    np.testing.assert_allclose(found.future[[6, 30], 0], 1.0, atol=1e-6)


def shifting(seed=0, noise=0.0):
    """A recording of the world that `small_models.Shifts` knows: the latent goes with the executed actions."""
    rng = np.random.default_rng(seed)
    actions = np.repeat(rng.uniform(-1, 1, (20, 2)), 5, axis=0)
    times = np.arange(100) * 0.1
    places = np.vstack([np.zeros(2), np.cumsum(actions * 0.2 * 0.1, axis=0)])[:100]
    latents = places / small_models.SCALE + rng.normal(0, noise, places.shape)
    return recording(times, np.arange(0, 10, 0.02), times, values=(latents, actions)), latents


def test_a_perfect_model_beats_both_baselines():
    made, latents = shifting()
    checkpoint = small_models.knowing(JOINTS)
    found = situations_of(made, checkpoint.config, HORIZON, checkpoint)
    figures = prediction.summarize_prediction(prediction.compute_prediction(made, found), found.spec)
    for k, entry in enumerate(figures["horizons"], start=1):
        still = np.square(latents[4 * k :] - latents[: -4 * k]).mean()
        assert entry["persistence"] == pytest.approx(still, rel=1e-4) and entry["frames"] == 100 - 4 * k
        assert entry["prediction_ratio"] < 1e-6 and entry["shuffled_ratio"] < 1e-6


def test_the_error_of_an_exact_model_is_the_noise():
    made, _ = shifting(noise=0.1)
    checkpoint = small_models.knowing(JOINTS)
    found = situations_of(made, checkpoint.config, 1, checkpoint)
    error = prediction.summarize_prediction(prediction.compute_prediction(made, found), found.spec)["horizons"][0][
        "error"
    ]
    assert error == pytest.approx(2 * 0.1**2, rel=0.2)


def test_shuffled_actions_are_never_those_of_the_same_frame():
    for count in (2, 3, 50):
        other = prediction._derangement(count, np.random.default_rng(count))
        assert sorted(other) == list(range(count)) and (other != np.arange(count)).all()


def test_surprise_equals_that_of_the_live_monitor():
    made, latents = shifting(noise=0.05)
    checkpoint = small_models.knowing(JOINTS)
    situations = situations_of(made, checkpoint.config, 1, checkpoint)
    samples = prediction.compute_surprise(made, situations)
    readings = samples["readings"]
    (part,) = situations.segments
    live = ObservationHistory(checkpoint.config)
    live.latents._keep = live.states._keep = live.actions._keep = 1e9
    for name, times, values in (
        ("states", part.state_times, part.states),
        ("actions", part.action_starts, part.actions),
    ):
        for t, value in zip(times, values, strict=True):
            getattr(live, name).add(t, value)
    monitor, expected = SurpriseMonitor(checkpoint, live), {}
    for row, t in enumerate(part.times):
        live.latents.add(t, made.latents.rows(row))
        if (reading := monitor.read(t)) is not None:
            expected[row] = reading
    assert len(readings) == len(expected) > 20
    assert [r.error for r in readings] == pytest.approx([r.error for r in expected.values()], rel=1e-4)
    assert samples["frames"] == list(expected)


def test_consecutive_surprised_readings_are_one_event():
    made, latents = shifting()
    latents = latents.copy()
    latents[50:54] += 3.0
    made.latents = LatentStore((2,))
    made.latents.add(latents.astype(np.float32))
    checkpoint = small_models.knowing(JOINTS)
    samples = prediction.compute_surprise(made, situations_of(made, checkpoint.config, 1, checkpoint))
    found = samples["events"]
    assert len(found) == 1 and 4.8 < found[0].begin < 5.4 and found[0].error == pytest.approx(9.0, rel=1e-3)
    assert prediction.summarize_surprise(samples, None)["events"] == 1


def test_the_clock_distinguishes_jumps_from_late_messages():
    clock = EpochClock()
    assert [clock.assign(t * S, t * S) for t in (10, 11, 12)] == [0, 0, 0]
    assert clock.assign(12 * S - 400_000_000, 12 * S) == 0, "an executed tick is stamped where it begins"
    assert clock.assign(3 * S, 13 * S) == 1 and clock.jumps == [(12 * S, 3 * S)]
    assert clock.assign(12 * S - 1, 13 * S + 1000) is None and clock.stragglers == 1
    assert clock.assign(4 * S, 14 * S) == 1
    assert clock.assign(13 * S, 23 * S) == 1, "later it is the new time that has come there"
    assert clock.assign(2 * S, 24 * S) == 2
