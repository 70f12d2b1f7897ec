"""The simulated cell: joints, pictures and time."""

import numpy as np
import pytest

from helpers import sim_arm
from jepa_ros.errors import InputError

ARM = list(sim_arm.robot().joints)
BENT = dict(zip(ARM, sim_arm.space().inverse_kinematics(np.array([0.25, -0.25])), strict=True))


@pytest.fixture
def scene():
    sim_arm.scene().reset()
    return sim_arm.scene()


def test_images_have_the_configured_size(scene):
    picture = scene.render()
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
    assert picture.std() > 5, "an empty picture"


def test_images_show_the_arm(scene):
    at_home = scene.render().astype(int)
    scene.reset()
    np.testing.assert_array_equal(scene.render(), at_home)
    scene.teleport(BENT)
    assert np.abs(scene.render() - at_home).max() > 30


def test_teleported_joints_are_at_rest_and_held(scene):
    scene.command((ARM[0],), np.array([0.5]))
    scene.step(0.2)
    scene.teleport(BENT)
    np.testing.assert_array_equal(scene.positions(ARM), list(BENT.values()))
    assert not scene.velocities(ARM).any()
    scene.step(0.5)
    np.testing.assert_allclose(scene.positions(ARM), list(BENT.values()), atol=0.02)


def test_reset_moves_the_other_joints_home(scene):
    home = scene.positions(ARM)
    scene.teleport(BENT)
    scene.reset({ARM[3]: 1.0})
    np.testing.assert_array_equal(scene.positions(ARM[:3] + ARM[4:]), np.delete(home, 3))
    assert scene.positions([ARM[3]]) == 1.0


def test_time_continues_over_a_reset(scene):
    scene.step(0.1)
    before = scene.time
    scene.reset(BENT)
    assert scene.time == before > 0
    scene.step(0.1)
    assert scene.time == pytest.approx(before + 0.1)


def test_servos_follow_their_set_points(scene):
    start = scene.positions(ARM)
    scene.command(tuple(ARM), start + 0.1)
    scene.step(1.0)
    np.testing.assert_allclose(scene.positions(ARM), start + 0.1, atol=0.02)


@pytest.mark.parametrize(
    "call",
    [
        lambda scene: scene.teleport({"no_joint": 0.0}),
        lambda scene: scene.reset({"no_joint": 0.0}),
        lambda scene: scene.command(("no_joint",), np.zeros(1)),
        lambda scene: scene.positions(["no_joint"]),
        lambda scene: scene.velocities(["no_joint"]),
    ],
)
def test_an_unknown_joint_is_named(scene, call):
    with pytest.raises(InputError, match="joint 'no_joint': expected one of .*openarm_right_joint1") as error:
        call(scene)
    assert "\n" not in str(error.value)


def test_joint_states_have_names_and_equal_lengths(scene):
    names, *arrays = scene.joint_state()
    assert set(ARM) <= set(names) and len(set(names)) == len(names)
    assert all(values.shape == (len(names),) and np.isfinite(values).all() for values in arrays)


def test_the_camera_model_projects_objects_correctly(scene):
    """The puck is seen where the intrinsics and the pose of the optical frame project it."""
    k, (position, (x, y, z, w)) = scene.camera_intrinsics, scene.camera_pose
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    scene.reset(puck_xy=(0.3, -0.02))
    camera = scene.data.cam("tablecam")
    np.testing.assert_allclose(rotation[:, 2], -camera.xmat.reshape(3, 3)[:, 2], atol=1e-9)
    seen = rotation.T @ (scene.data.body("puck").xpos - position)
    assert seen[2] > 0
    u, v = k["fx"] * seen[0] / seen[2] + k["cx"], k["fy"] * seen[1] / seen[2] + k["cy"]
    assert -0.5 <= u <= k["width"] and -0.5 <= v <= k["height"]
    with_puck = scene.render().astype(int)
    scene.reset(puck_xy=(5.0, 5.0))
    changed = np.argwhere(np.abs(scene.render() - with_puck).max(-1) > 20)
    assert len(changed), "the puck is not in the picture"
    np.testing.assert_allclose(changed.mean(0), [v, u], atol=2.0)


def test_a_blocked_joint_is_held_until_released():
    joints, scene = tuple(sim_arm.robot().joints), sim_arm.scene()
    scene.reset()
    home, elbow = scene.positions(joints), 3
    scene.block(joints[elbow])
    scene.command(joints, home + 0.1)
    scene.step(1.0)
    moved = scene.positions(joints) - home
    assert abs(moved[elbow]) < 1e-3 and np.delete(moved, elbow).min() > 0.09
    scene.block("")
    scene.step(1.0)
    assert scene.positions(joints)[elbow] - home[elbow] > 0.09
