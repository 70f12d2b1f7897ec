"""The model that ships with the package, and the closed loop that it is judged in."""

import math

import numpy as np
import pytest

from helpers import (
    sim_arm,
    small_models,  # noqa: F401  (one torch thread)
)
from jepa_ros.evaluation.closed_loop import ModelActor, OracleActor, RandomActor, Timing, run_trial
from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
from jepa_ros.reporting.summary import wilson_interval
from jepa_ros.resources import list_models
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.tasks.reach import Reach
from jepa_ros.world_model.checkpoint import check_robot, load_checkpoint

NAME = "openarm_reach"
TASK = Reach(sim_arm.robot())
shipped = pytest.mark.skipif(NAME not in list_models(), reason=f"config/models/{NAME} is not there")


@pytest.fixture(scope="module")
def cell():
    from jepa_ros.sim.scene import Scene

    return ArmCell(Scene(), sim_arm.robot())


@pytest.fixture(scope="module")
def goals(cell):
    return TASK.sample_goals(cell, 3, 11)


def test_the_oracle_baseline_reaches_and_holds_the_goal(cell, goals):
    actor = OracleActor(cell, TASK)
    actor.start(goals[0])
    trial = run_trial(cell, TASK, goals[0], actor, Timing())
    assert trial.reached and trial.final_distance < 0.03 < 0.2 < trial.start_distance
    assert 1.0 <= trial.seconds < 5.0
    assert len(trial.distances) == pytest.approx(10 * trial.seconds, abs=3)


def test_the_random_baseline_moves_and_times_out(cell, goals):
    actor = RandomActor(cell, 0)
    actor.start(goals[0])
    trial = run_trial(cell, TASK, goals[0], actor, Timing(timeout=3.0))
    assert np.ptp(trial.distances) > 0.02
    assert not trial.reached and trial.seconds == 3.0


def test_the_wilson_confidence_interval_is_right():
    low, high = wilson_interval(95, 100)
    assert (low, high) == (pytest.approx(0.8882, abs=1e-3), pytest.approx(0.9785, abs=1e-3))
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == pytest.approx(1.0)


@shipped
def test_the_shipped_model_fits_the_arm():
    checkpoint = load_checkpoint(NAME)
    check_robot(checkpoint.config, sim_arm.robot())
    assert "openarm" in checkpoint.config.robots and len(checkpoint.model_id) == 16


@shipped
@pytest.mark.slow
def test_the_shipped_model_reaches_goals(cell, goals):
    checkpoint = load_checkpoint(NAME)
    controller = RecedingHorizonController(checkpoint, cell.space, PlanningSettings(budget=math.inf))
    actor = ModelActor(cell, checkpoint, controller, Timing())
    trials = []
    for goal in goals:
        actor.start(goal)
        trials.append(run_trial(cell, TASK, goal, actor, Timing()))
        assert len(actor.plans) > 3
    assert sum(t.reached for t in trials) >= 2, [t.final_distance for t in trials]
