"""The public API: its examples run, its names are the package's, and wrong input is named in one line."""

import doctest
import inspect

import numpy as np
import pytest
import torch

import jepa_ros
from helpers import reach_bag, sim_arm, small_models
from jepa_ros import api
from jepa_ros.world_model.checkpoint import Checkpoint, save_checkpoint

HOME = [0.0, 0.0, 0.0, 1.57, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def model():
    return jepa_ros.load_model("openarm_reach")


@pytest.fixture(scope="module")
def latent(model):
    sim_arm.scene().reset()
    return jepa_ros.encode(model, sim_arm.scene().render())


def test_docstring_examples_run():
    """One after the other, as a reader would try them; each function has one."""
    shown = {"jepa_ros": jepa_ros, "np": np}
    examples = [
        example
        for name in ("load_model", "encode", "imagine", "plan")
        for example in doctest.DocTestParser().get_examples(getattr(api, name).__doc__, name)
    ]
    test = doctest.DocTest(examples, shown, "jepa_ros.api", None, None, None)
    assert len(examples) >= 10 and not doctest.DocTestRunner().run(test).failed


def test_public_names_are_package_attributes_with_docstrings():
    for name in api.__all__:
        assert getattr(jepa_ros, name) is getattr(api, name)
        assert inspect.getdoc(getattr(api, name))
    assert jepa_ros.planning.SOLVERS, "sub-modules are attributes as well"
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_that_name'"):
        jepa_ros.nothing_of_that_name  # noqa: B018


def test_evaluate_bag_returns_the_summary_of_a_recording(model, tmp_path):
    summary = jepa_ros.evaluate_bag(reach_bag.write(tmp_path / "bag", ticks=12), model, plan_states=0, horizon=2)
    assert summary["model"] == "openarm_reach" and summary["metrics"]["frames"] == 6 * 13
    assert not summary["problems"]


def test_imagined_states_are_in_physical_units(model, latent):
    state = np.append(np.append(HOME, np.zeros(7)), np.zeros(model.config.proprioception.dimension - 14))
    still = jepa_ros.imagine(model, latent, np.zeros((20, 2)), state)
    assert still.latents.shape == (5, 16) and np.abs(still.states[0] - state).max() < 0.1, "rad, at rest"
    moved = jepa_ros.imagine(model, latent, np.tile([0.0, -1.0], (20, 1)), state)
    assert np.abs(moved.states[-1] - still.states[-1]).max() > 0.1


def test_a_plan_leads_to_the_tool_position_of_the_goal_image(model, latent):
    space, scene = sim_arm.space(), sim_arm.scene()
    target = space.tool_coordinates(np.array(HOME)) + [0.05, -0.08]
    scene.reset(dict(zip(sim_arm.robot().joints, space.inverse_kinematics(target), strict=True)))
    goal = jepa_ros.encode(model, scene.render())
    scene.reset()
    step = jepa_ros.plan(model, latent, goal, HOME, plan_ticks=20)
    start, end = (space.tool_coordinates(q) for q in step.trajectory.positions[[0, -1]])
    assert np.linalg.norm(end - target) < 0.5 * np.linalg.norm(start - target)
    again = jepa_ros.plan(model, latent, goal, HOME, plan_ticks=20)
    np.testing.assert_array_equal(again.trajectory.positions, step.trajectory.positions)


def test_imagine_works_for_a_model_without_robot_or_proprioception(tmp_path):
    config = small_models.config()
    save_checkpoint(tmp_path, config, *small_models.fresh(config, 0))
    made = jepa_ros.load_model(tmp_path)
    assert isinstance(made, Checkpoint)
    size = config.preprocessing.size
    latent = jepa_ros.encode(made, np.zeros((size, size, 3), np.uint8))
    actions = np.zeros((2 * config.block, config.action.dimension))
    assert jepa_ros.imagine(made, latent, actions).latents.shape == (2, *config.latent_shape)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, z: jepa_ros.load_model("none_of_that_name"), "model 'none_of_that_name': expected"),
        (lambda m, z: jepa_ros.load_model("openarm_reach", "abacus"), "device: expected auto, cpu"),
        (lambda m, z: jepa_ros.encode(m), r"images: expected one for each camera \(frame\), found 0"),
        (lambda m, z: jepa_ros.encode(m, np.zeros((8, 8))), r"expected \(H, W, 3\) uint8"),
        (lambda m, z: jepa_ros.imagine(m, z[:3], np.zeros((4, 2))), r"latent: expected shape \(16,\), found \(3,\)"),
        (
            lambda m, z: jepa_ros.imagine(m, z, np.zeros((3, 2))),
            r"actions: expected shape \(4 \* H, 2\), found \(3, 2\)",
        ),
        (lambda m, z: jepa_ros.imagine(m, z, np.zeros((4, 2)), [0.0]), r"state: expected shape"),
        (lambda m, z: jepa_ros.plan(m, z, z, [0.0]), r"joints: expected shape \(7,\), found \(1,\)"),
        (lambda m, z: jepa_ros.plan(m, z, z[:1], HOME), r"goal: expected shape"),
        (lambda m, z: jepa_ros.plan(m, z, z, HOME, solver="annealing"), "solver: expected one of"),
        (lambda m, z: jepa_ros.plan(m, z, z, HOME, robot="ur5e"), "ur5e"),
        (lambda m, z: jepa_ros.plan(m, z, torch.full((16,), torch.nan), HOME), "plan: no plan is allowed"),
    ],
)
def test_invalid_input_is_one_clear_line(model, latent, call, words):
    with pytest.raises(jepa_ros.InputError, match=words):
        call(model, latent)
