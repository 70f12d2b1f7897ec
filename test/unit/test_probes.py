"""Probes: a position that is linear in the latent is read off it; objects come from topics of a bag."""

import numpy as np
import pytest
import torch

from helpers import object_bag, reach_bag, sim_arm
from jepa_ros.datasets.mapping import parse_objects
from jepa_ros.datasets.matching import PositionSampler
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.world_model.heads import fit_probe


def positions_of(latents, seed=0):
    """(N, 3) of latents (N, D), by a fixed linear map."""
    rng = torch.Generator().manual_seed(seed)
    return latents @ torch.randn(latents.shape[1], 3, generator=rng) + torch.tensor([0.3, -0.2, 0.1])


def test_a_position_linear_in_the_latent_is_read_exactly():
    z = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    probe = fit_probe("puck", (6,), (z[:150], positions_of(z[:150])), (z[150:], positions_of(z[150:])))
    assert probe.error < 1e-4 and probe.dimension == 3 and probe.unit == "m"
    torch.testing.assert_close(probe.read(z), positions_of(z), atol=1e-4, rtol=0)
    assert probe.read(z.view(10, 4, 5, 6)).shape == (10, 4, 5, 3)
    assert probe.read(z[0]).shape == (3,)


def test_patch_tokens_are_averaged():
    z = torch.randn(120, 9, 5, generator=torch.Generator().manual_seed(2))
    truth = positions_of(z.mean(1))
    probe = fit_probe("puck", (9, 5), (z[:100], truth[:100]), (z[100:], truth[100:]))
    assert probe.error < 1e-4
    torch.testing.assert_close(probe.read(z), truth, atol=1e-4, rtol=0)


def test_the_probe_error_is_measured_on_test_episodes():
    z = torch.randn(4000, 4, generator=torch.Generator().manual_seed(3))
    noise = 0.01 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(4))
    truth = positions_of(z) + noise
    probe = fit_probe("puck", (4,), (z[:2000], truth[:2000]), (z[2000:], truth[2000:]))
    assert probe.error == pytest.approx(0.01 * 3**0.5, rel=0.1)


def test_the_error_of_joints_is_of_one_joint():
    z = torch.randn(4000, 4, generator=torch.Generator().manual_seed(3))
    truth = z @ torch.randn(4, 7, generator=torch.Generator().manual_seed(2))
    truth = truth + 0.01 * torch.randn(4000, 7, generator=torch.Generator().manual_seed(4))
    probe = fit_probe("joints", (4,), (z[:2000], truth[:2000]), (z[2000:], truth[2000:]))
    assert probe.error == pytest.approx(0.01, rel=0.1) and (probe.dimension, probe.unit) == (7, "rad")


def test_constant_latents_get_no_weight():
    z = torch.randn(100, 3, generator=torch.Generator().manual_seed(5))
    dead = torch.cat([z, torch.full((100, 2), 7.0)], 1)
    probe = fit_probe("puck", (5,), (dead, positions_of(z)), (dead, positions_of(z)))
    assert probe.error < 1e-3 and torch.isfinite(probe.weights).all()


def test_frames_without_the_object_are_dropped():
    z = torch.randn(100, 3, generator=torch.Generator().manual_seed(6))
    truth = positions_of(z)
    truth[::3] = torch.nan
    assert fit_probe("puck", (3,), (z, truth), (z, truth)).error < 1e-4


def test_an_object_without_any_position_is_refused():
    z, nowhere = torch.randn(10, 3), torch.full((10, 3), torch.nan)
    with pytest.raises(InputError, match="object puck: expected positions in training and test episodes, found none"):
        fit_probe("puck", (3,), (z, nowhere), (z, nowhere))


def episodes(bag, **objects):
    robot, urdf = sim_arm.robot(), sim_arm.scene().urdf
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    positions = PositionSampler(kinematics, robot.base_frame, objects)
    return list(
        read_episodes(bag, sim_arm.space(), (tuple(robot.joints), tuple(robot.gripper)), 16, positions=positions)
    )


def test_tool_positions_come_from_forward_kinematics(tmp_path):
    for episode in episodes(reach_bag.write(tmp_path / "bag")):
        assert episode.positions["tool"].shape == (25, 3)
        np.testing.assert_allclose(episode.positions["tool"][:, :2], episode.tool, atol=1e-6)
        np.testing.assert_allclose(episode.positions["tool"][:, 2], sim_arm.space().height, atol=2e-3)


@pytest.mark.parametrize("kind", [object_bag.POSE, object_bag.POINT])
def test_object_positions_are_interpolated_at_the_frame_stamps(tmp_path, kind):
    found = episodes(object_bag.write(tmp_path, kind), puck="puck")
    assert len(found) == 6
    for number, episode in enumerate(found):
        stamps = reach_bag.FIRST + number * 60 * 10**9 + np.arange(25) * 10**8
        np.testing.assert_allclose(episode.positions["puck"], [object_bag.place(s) for s in stamps], atol=1e-4)


def test_an_episode_without_the_object_has_no_positions(tmp_path):
    found = episodes(object_bag.write(tmp_path, episodes=(0, 4)), puck="/puck")
    assert [bool(np.isfinite(e.positions["puck"]).all()) for e in found] == [True, False, False, False, True, False]
    assert np.isnan(found[1].positions["puck"]).all()


def test_a_missing_topic_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InputError) as error:
        episodes(object_bag.write(tmp_path), puck="/cup")
    text = str(error.value)
    assert "expected positions of puck on the topic /cup" in text and "/puck (geometry_msgs/msg/PoseStamped, " in text
    assert "/joint_states (sensor_msgs/msg/JointState, " in text and "\n" not in text


def test_an_object_topic_of_another_type_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected positions of puck on the topic /joint_states"):
        episodes(reach_bag.write(tmp_path / "bag"), puck="/joint_states")


def test_positions_in_another_frame_are_refused(tmp_path):
    with pytest.raises(InputError, match="/puck: expected positions in the frame world, found camera"):
        episodes(object_bag.write(tmp_path, frame="camera"), puck="/puck")


@pytest.mark.parametrize(
    "given, words",
    [
        (["puck"], "expected NAME=TOPIC"),
        (["=puck"], "expected NAME=TOPIC"),
        (["puck="], "expected NAME=TOPIC"),
        (["a b=/puck"], "expected NAME=TOPIC"),
        (["tool=/puck"], "the arm's own tool"),
        (["puck=/a", "puck=/b"], "the name twice"),
    ],
)
def test_invalid_object_options_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        parse_objects(given)


def test_object_options_are_parsed():
    assert parse_objects(["puck=/puck", "cup=cup/pose"]) == {"puck": "/puck", "cup": "cup/pose"}
