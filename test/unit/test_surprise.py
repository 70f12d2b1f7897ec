"""Surprise: prediction errors, placed among those of held-out episodes."""

import numpy as np
import pytest
import torch

from helpers import small_models
from jepa_ros.world_model.history import ObservationHistory
from jepa_ros.world_model.surprise import SurpriseMonitor

T0, FRAME = 1000.0, 1 / 15
JOINTS = ("a", "b")
VELOCITY = np.array([0.5, -0.25])
"""Executed action; the knowing model predicts that the latent goes with it."""


def fresh():
    """A monitor, and what it sees."""
    checkpoint = small_models.knowing(JOINTS)
    seen = ObservationHistory(checkpoint.config)
    return SurpriseMonitor(checkpoint, seen), seen


def monitor(until, jump_at=np.inf, jump=0.0, actions=True):
    made, seen = fresh()
    for k in range(round(until / FRAME) + 1):
        t = k * FRAME
        xy = VELOCITY * 0.2 * t
        seen.latents.add(T0 + t, small_models.latent_of(xy) + (jump if t >= jump_at else 0.0))
    for k in range(round(until / 0.02) + 1):
        seen.states.add(T0 + 0.02 * k, np.zeros(4))
    for k in range(round(until / 0.1) * actions):
        seen.actions.add(T0 + 0.1 * k, VELOCITY)
    return made, seen


def test_an_exact_model_has_no_surprise():
    reading = monitor(2.0)[0].read(T0 + 1.8)
    assert reading.error < 1e-4 and reading.quantile < 1e-3 and not reading.surprised


@pytest.mark.parametrize(
    "jump, quantile, surprised",
    [
        (0.1**0.5, 0.5, False),
        (0.15**0.5, 0.7, False),
        (0.4**0.5, 1.0, False),
        (0.79**0.5, 1.0, False),
        (2.0, 1.0, True),
    ],
)
def test_errors_are_ranked_by_the_checkpoints_quantiles(jump, quantile, surprised):
    reading = monitor(2.0, jump_at=1.7, jump=jump)[0].read(T0 + 1.8)
    assert reading.error == pytest.approx(jump**2, abs=2e-3)
    assert reading.quantile == pytest.approx(quantile, abs=0.01)
    assert reading.surprised == surprised and reading.threshold == 0.8


def test_there_is_one_reading_a_model_step():
    (made, seen), read = fresh(), []
    for k in range(46):
        stamp = T0 + k * FRAME
        seen.latents.add(stamp, torch.zeros(2))
        seen.states.add(stamp, np.zeros(4))
        seen.actions.add(T0 + 0.1 * k, np.zeros(2))
        if made.read(stamp) is not None:
            read.append(stamp)
    assert read[0] == pytest.approx(T0 + 0.4, abs=1e-6), "at the first frame a model step after the first"
    np.testing.assert_allclose(np.diff(read), 0.4, atol=1e-6)
    assert len(read) == 7


def test_without_data_there_is_no_reading():
    assert monitor(2.0)[0].read(T0 + 0.2) is None, "no latent a model step before"
    assert monitor(2.0)[0].read(T0 + 2.2) is None, "no latent now"
    assert monitor(2.0, actions=False)[0].read(T0 + 1.8) is None, "no actions"
    made, seen = monitor(2.0)
    seen.states.clear()
    assert made.read(T0 + 1.8) is None, "no states"


def test_a_new_episode_has_readings_from_its_start():
    made, seen = monitor(2.0)
    assert made.read(T0 + 1.8) is not None
    seen.clear()
    assert made.read(T0 + 1.8) is None
    for k in range(10):
        seen.latents.add(T0 + k * FRAME, torch.zeros(2))
        seen.states.add(T0 + k * FRAME, np.zeros(4))
        seen.actions.add(T0 + 0.1 * k, np.zeros(2))
    assert made.read(T0 + 6 * FRAME) is not None
