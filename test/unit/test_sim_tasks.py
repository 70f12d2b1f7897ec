"""A new simulated task: one class in the registry, driven by the functions that evaluate, collect and the demo use."""

import numpy as np
import pytest

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.evaluation.closed_loop import OracleActor, Timing, run_trial
from jepa_ros.sim import tasks
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.task import TaskGoal, goal_set_hash

CUBE_START = np.array([0.24, -0.22])


class Push:
    """Push a cube on the table 4 cm to the front."""

    spaces = ("planar_velocity",)
    tolerance_m = 0.02
    hold_s = 0.3

    def __init__(self, robot):
        self._robot = robot

    def add_objects(self, spec):
        import mujoco  # only after jepa_ros.sim, which selects its OpenGL

        cube = spec.worldbody.add_body(name="cube", pos=[*CUBE_START, 0.45])
        cube.add_freejoint()
        cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.02, 0.02, 0.05], mass=0.05)

    def reset_for_play(self, cell, rng):
        cell.reset(cell.space.inverse_kinematics(np.array([0.05, rng.uniform(-0.3, -0.2)])))

    def sample_goals(self, cell, count, seed):
        start = np.array([0.05, -0.22])
        q = cell.space.inverse_kinematics(start)
        return [TaskGoal(CUBE_START, CUBE_START + [0.04, 0.0], q, q, cell.scene.render().copy()) for _ in range(count)]

    def reset_to_start(self, cell, goal):
        cell.reset(goal.start_q)

    def measure_distance(self, pose, goal):
        return float(np.linalg.norm(pose("cube")[0][:2] - goal.target))

    def oracle_path(self, goal):
        return np.array([[0.05, -0.21], [0.11, -0.22]])


@pytest.fixture
def push(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "push", Push)
    return tasks.make_task("push", sim_arm.robot())


def test_the_oracle_reaches_the_goal_of_a_registered_task(push):
    cell = ArmCell(Scene(width=64, height=48, add_objects=push.add_objects), sim_arm.robot())
    assert cell.scene.joint_names == sim_arm.scene().joint_names, "objects are no joints of the robot"
    assert set(cell.scene.link_poses()) - set(sim_arm.scene().link_poses()) == {"cube"}, "tf has the task's objects"
    (goal,) = push.sample_goals(cell, 1, 0)
    actor = OracleActor(cell, push)
    actor.start(goal)
    trial = run_trial(cell, push, goal, actor, Timing(timeout=6.0))
    assert trial.reached and trial.start_distance == pytest.approx(0.04, abs=1e-3) and trial.final_distance < 0.02
    push.reset_for_play(cell, np.random.default_rng(0))
    np.testing.assert_allclose(cell.scene.frame_position("cube")[:2], CUBE_START, atol=1e-3)


def test_a_goal_set_is_made_for_a_task_by_name(push):
    found = tasks.make_goal_set("openarm", 2, 0, "push")
    assert isinstance(found.task, Push) and len(found.goals) == 2 and found.hash == goal_set_hash(found.goals)


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="task 'lift': give one of reach"):
        tasks.make_task("lift", sim_arm.robot())
