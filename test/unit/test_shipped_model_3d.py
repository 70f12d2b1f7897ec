"""The shipped model of a tool that moves in space and turns."""

import math

import pytest

from helpers import (
    sim_arm,
    small_models,  # noqa: F401  (one torch thread)
)
from jepa_ros.evaluation.closed_loop import ModelActor, Timing, run_trial
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
from jepa_ros.resources import list_models
from jepa_ros.sim.tasks import make_task
from jepa_ros.world_model.checkpoint import check_robot, load_checkpoint

NAME = "openarm_reach3d"
pytestmark = pytest.mark.skipif(NAME not in list_models(), reason=f"config/models/{NAME} is not there")


def test_the_model_fits_its_robot():
    checkpoint = load_checkpoint(NAME)
    check_robot(checkpoint.config, sim_arm.robot_3d())
    assert checkpoint.config.name == NAME and checkpoint.config.robots == ("openarm_3d",)


@pytest.mark.slow
def test_the_model_reaches_goals_in_space():
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.scene import Scene

    robot = sim_arm.robot_3d()
    cell, task = ArmCell(Scene(), robot), make_task("reach3d", robot)
    rails = Guardrails.from_robot(robot, cell.scene.urdf, cell.space, cell.limits)
    controller = RecedingHorizonController(load_checkpoint(NAME), cell.space, PlanningSettings(budget=math.inf), rails)
    actor = ModelActor(cell, load_checkpoint(NAME), controller, Timing())
    trials = []
    for goal in task.sample_goals(cell, 3, 11):
        actor.start(goal)
        trials.append(run_trial(cell, task, goal, actor, Timing(), executed=actor.add_executed))
    assert sum(t.reached for t in trials) >= 2, [t.final_distance for t in trials]
