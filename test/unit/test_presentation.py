"""The view of the cell for people: it shows robot, goal and path, and leaves the model's camera alone."""

import numpy as np
import pytest

from helpers import sim_arm
from jepa_ros.sim.presentation import GOAL_GREEN, PresentationView

ARM = list(sim_arm.robot().joints)
BENT = dict(zip(ARM, sim_arm.space().inverse_kinematics(np.array([0.25, -0.25])), strict=True))
GOAL = np.array([0.28, -0.32, 0.478])


@pytest.fixture(scope="module")
def view():
    made = PresentationView(160, 120)
    yield made
    made.close()


def near(image, colour):
    """Pixels (N, 2) as x, y whose colour is within 40 of `colour`."""
    return np.argwhere(np.abs(image.astype(int) - colour).max(2) < 40)[:, ::-1]


def test_the_robot_is_rendered_at_its_joint_positions(view):
    home = view.render({})
    assert home.shape == (120, 160, 3) and home.dtype == np.uint8
    np.testing.assert_array_equal(view.render({"no_such_joint": 1.0}), home)
    assert np.abs(view.render(BENT).astype(int) - home).max() > 60
    np.testing.assert_array_equal(view.render({}), home)


def test_the_image_is_neither_overexposed_nor_dark(view):
    levels = view.render({}).mean(2)
    assert (levels > 250).mean() < 0.01 and (levels < 20).mean() < 0.05


def test_only_the_goal_is_drawn_in_green(view):
    assert not len(near(view.render({}), GOAL_GREEN))
    green = near(view.render({}, goal=GOAL), GOAL_GREEN)
    assert len(green) and np.abs(green - view.project(GOAL)).max() < 20


def test_the_drawn_tool_path_ends_in_a_dot(view):
    path = np.linspace([0.2, -0.2, 0.478], GOAL, 10)
    image, bare = view.render({}, tool_path=path), view.render({})
    x, y = view.project(path[-1])[0].astype(int)
    assert image[y, x, 0] > 180 and image[y, x, 2] < 120, "red"
    assert np.any(image != bare, axis=2).sum() < 400


def test_projection_agrees_with_the_rendering(view):
    """The goal's ball is drawn by MuJoCo, its place in the image is computed here."""
    green = near(view.render({}, goal=GOAL), (34, 215, 110))
    assert len(green) > 5
    assert abs(np.median(green[:, 0]) - view.project(GOAL)[0, 0]) < 3


def test_rendering_the_view_does_not_change_the_model_camera(view):
    scene = sim_arm.scene()
    scene.reset()
    before = scene.render().copy()
    view.render(BENT, goal=GOAL)
    np.testing.assert_array_equal(scene.render(), before)
