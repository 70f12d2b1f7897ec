"""The reach task: its goals, and what counts as reached."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.sim.task import GoalHold, goal_set_hash
from jepa_ros.sim.tasks.reach import Reach


@pytest.fixture(scope="module")
def goals():
    return {seed: sample_goals(60, seed) for seed in range(3)}


def sample_goals(count, seed):
    return Reach(sim_arm.robot()).sample_goals(sim_arm.cell(), count, seed)


@pytest.mark.parametrize("seed", range(3))
def test_goals_are_far_from_their_starts_and_spread(goals, seed):
    ways = [np.linalg.norm(g.target - g.start) for g in goals[seed]]
    assert min(ways) >= 0.10
    assert np.median(ways) >= 0.20
    assert ConvexHull([g.target for g in goals[seed]]).volume * 1e4 >= 700


def test_each_goal_starts_at_the_previous_one(goals):
    for before, after in zip(goals[0][:-1], goals[0][1:], strict=True):
        np.testing.assert_array_equal(before.target, after.start)
        np.testing.assert_array_equal(before.goal_q, after.start_q)


def test_goal_images_show_the_arm_at_the_goal(goals):
    scene, goal = sim_arm.scene(), goals[0][5]
    scene.reset(dict(zip(sim_arm.robot().joints, goal.goal_q, strict=True)))
    np.testing.assert_allclose(scene.frame_position("openarm_right_ee_control_point")[:2], goal.target, atol=2e-3)
    np.testing.assert_array_equal(scene.render(), goal.image)


def test_the_hash_identifies_the_goals(goals):
    again = sample_goals(5, 1)
    hashes = [goal_set_hash(goals[seed]) for seed in range(3)]
    assert len(set(hashes)) == 3 and all(len(h) == 12 for h in hashes)
    assert goal_set_hash(again) == goal_set_hash(goals[1][:5]) != hashes[1]


@pytest.mark.parametrize("count", [0, -3])
def test_zero_or_negative_goal_counts_are_refused(count):
    with pytest.raises(InputError, match=f"goals: expected at least 1, found {count}"):
        sample_goals(count, 0)


def first_reached(distances, dt=0.1, tolerance_m=Reach.tolerance_m, hold_s=Reach.hold_s):
    hold = GoalHold(tolerance_m, hold_s)
    return next((i for i, d in enumerate(distances) if hold.update(i * dt, d)), None)


def test_a_goal_must_be_held_without_a_break():
    assert first_reached([0.02] * 20) == 10
    assert first_reached([0.05] * 3 + [0.03] * 20) == 13
    assert first_reached([0.02] * 9 + [0.031] + [0.02] * 9 + [0.031]) is None
    assert first_reached([0.02] * 9 + [0.031] + [0.02] * 12) == 20
    assert first_reached([0.02] * 3, hold_s=0.0) == 0
    assert first_reached([0.04] * 20) is None
    assert first_reached([0.04] * 20, tolerance_m=0.05) == 10
