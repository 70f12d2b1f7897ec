"""`jepa_ros data build`: the episodes that training read from bags before, cut, thinned, resumed and split."""

import json

import numpy as np
import pytest
import yaml

from helpers import episode_bags, foreign_bags, reach_bag, two_camera_bags
from helpers.foreign_datasets import build, greys
from helpers.training_recipes import TINY
from jepa_ros.datasets.build import build_dataset
from jepa_ros.datasets.episodes import EpisodeSet, MappedFrames
from jepa_ros.datasets.recorded_episodes import read_episodes, read_splits
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import load_robot
from jepa_ros.training.train_model import train_model


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return reach_bag.write(tmp_path_factory.mktemp("bag") / "play")


@pytest.fixture(scope="module")
def built(bag, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "data"
    assert build_dataset(bags=[bag], out=out, size=16) == 0
    return out


def splits(data, size=16, cameras=()):
    robot = load_robot("openarm")
    with ProgressDisplay(quiet=True) as bar:
        return read_splits(data, robot, (tuple(robot.joints), tuple(robot.gripper)), 0.1, size, 16, bar, cameras)


# --- the same as from bags -------------------------------------------------------------------------------------------


def test_cached_episodes_equal_those_read_from_the_bag_bit_for_bit(bag, built):
    for one, other in zip(splits(bag), splits(built), strict=True):
        assert one.split == other.split and isinstance(other.frames, np.memmap)
        for name in ("frames", "states", "actions", "tool"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.positions["tool"], other.positions["tool"])


@pytest.mark.parametrize("rate, offset", [(10.0, 0.0), (15.0, 0.013), (30.0, 0.05), (20.0, 0.0)])
def test_cameras_off_the_control_grid_are_sampled_as_when_read_from_bags(tmp_path, rate, offset):
    episodes = [{"split": s, "ticks": 12, "rate": rate, "offset": offset} for s in ("train", "val")]
    bag = episode_bags.write_bag(tmp_path / "bag", episodes)
    joints = {"joints": ["a", "b"], "gripper": ["g"]}
    changes = {"views": [{"topic": "*"}], "joint_states": joints, "actions": {"source": "executed"}}
    data, _ = build(tmp_path, bag, changes)
    wanted = list(read_episodes(bag, episode_bags.SPACE, episode_bags.FIELDS, 16))
    for episode, entry in zip(wanted, data.index.episodes, strict=True):
        np.testing.assert_array_equal(data.rows(entry, "frames")[:, 0], episode.frames)
        np.testing.assert_array_equal(data.rows(entry, "states"), episode.states)
        np.testing.assert_array_equal(data.rows(entry, "actions")[:-1], episode.actions)
        assert entry.split == episode.split


def test_two_cached_views_equal_those_read_from_the_bag(bag, tmp_path):
    both = two_camera_bags.add_wrist(bag, tmp_path / "both", late=12 * 10**6)
    cameras = ("/image", "/wrist/image")
    assert build_dataset(bags=[both], out=tmp_path / "data", size=16, camera=cameras) == 0
    for one, other in zip(splits(both, cameras=cameras), splits(tmp_path / "data", cameras=cameras), strict=True):
        assert other.frames.shape[1] == 2
        np.testing.assert_array_equal(one.frames, other.frames)


def test_training_from_the_cache_and_from_the_bag_gives_the_same_losses(bag, built, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    found = {}
    for name, data in (("bag", bag), ("cache", built)):
        assert train_model(data=data, out=tmp_path / name, recipe=str(recipe), name="tiny") == 0
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        found[name] = {key: summary[key] for key in ("validation", "test", "policy", "heads", "model_id")}
    assert found["bag"] == found["cache"]


def test_frames_of_a_dataset_are_memory_mapped(built):
    episodes = splits(built)
    data = EpisodeSet(episodes, 0.0, 1.0)
    assert isinstance(data.frames, MappedFrames)
    whole = np.concatenate([np.array(e.frames) for e in episodes])
    rows = np.random.default_rng(0).integers(0, len(whole), (7, 3))
    for index in (rows, rows[0], 5, -1, slice(3, 60), range(0, 100, 9), slice(0, 0)):
        np.testing.assert_array_equal(data.frames[index], whole[index])
    assert data.frames.shape == whole.shape and data.frames.dtype == np.uint8 and len(data.frames) == len(whole)


@pytest.mark.parametrize(
    "options, words",
    [({"size": 32}, "size 32"), ({"cameras": ("/wrist/image",)}, "views")],
)
def test_a_dataset_that_does_not_fit_the_training_is_refused_with_the_field(built, options, words):
    with pytest.raises(InputError, match=f"dataset .*expected the {words}.*found"):
        splits(built, **options)


# --- cutting and thinning --------------------------------------------------------------------------------------------


def test_a_gap_between_images_splits_the_episode(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", skip=lambda topic, t: "image" in topic and 1.02 < t < 1.98)
    data, summary = build(tmp_path, bag)
    first, second = data.index.episodes
    assert greys(data, first).tolist() == [foreign_bags.grey(0.1 * k) for k in range(11)]
    assert greys(data, second).tolist() == [foreign_bags.grey(2.0 + 0.1 * k) for k in range(21)]
    assert second.stamp - first.stamp == 2 * 10**9
    assert summary["dropped"] == {"gaps between images": 1}


def test_missing_joint_states_split_the_episode(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", skip=lambda topic, t: topic == "/joint_states" and 1.03 < t < 1.97)
    data, summary = build(tmp_path, bag)
    first, second = (data.rows(e, "stamps") for e in data.index.episodes)
    assert first[-1] - foreign_bags.FIRST <= 1.05e9 and second[0] - foreign_bags.FIRST >= 1.95e9
    assert summary["dropped"]["images without joint states"] > 10


def test_missing_actions_split_the_episode(tmp_path):
    bag = episode_bags.write_bag(tmp_path / "whole", [{"split": "train", "ticks": 24}])
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer

    types = foreign_bags.TYPES
    with Reader(bag) as reader, Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as out:
        made = {c.id: out.add_connection(c.topic, c.msgtype, typestore=types) for c in reader.connections}
        number = 0
        for connection, recorded, raw in reader.messages():
            number += connection.topic == "/executed"
            if connection.topic != "/executed" or not 10 <= number < 15:
                out.write(made[connection.id], recorded, raw)
    joints = {"joints": ["a", "b"], "gripper": ["g"]}
    data, summary = build(
        tmp_path,
        tmp_path / "bag",
        {"views": [{"topic": "*"}], "joint_states": joints, "actions": {"source": "executed"}},
    )
    first, second = data.index.episodes
    assert (first.frames, second.frames) == (10, 11)
    np.testing.assert_allclose(data.rows(second, "actions")[:-1], episode_bags.actions(24)[14:], atol=1e-6)
    assert summary["dropped"]["images without actions"] == 4


def test_an_undecodable_image_splits_the_episode(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", broken=lambda t: abs(t - 1.5) < 0.01)
    data, summary = build(tmp_path, bag)
    assert [e.frames for e in data.index.episodes] == [15, 25]
    assert summary["dropped"] == {"/camera/image/compressed: undecodable images (truncated)": 1}


def test_images_before_the_first_episode_marker_are_dropped(tmp_path):
    from jepa_ros.bags.writer import EpisodeWriter

    with EpisodeWriter(tmp_path / "bag", "camera", "world") as bag:
        for k in range(5):
            bag.image(episode_bags.FIRST - (5 - k) * 10**8, episode_bags.grey(0))
        episode_bags.write_episode(bag, 4, "val", 8, episode_bags.FIRST)
    joints = {"joints": ["a", "b"], "gripper": ["g"]}
    changes = {"views": [{"topic": "*"}], "joint_states": joints, "actions": {"source": "executed"}}
    data, summary = build(tmp_path, tmp_path / "bag", changes)
    (entry,) = data.index.episodes
    assert (entry.number, entry.split, entry.task, entry.frames) == (4, "val", "play", 9)
    assert summary["dropped"] == {"images before the first episode": 5} and summary["split_by"] == "marker"


def test_a_backward_clock_jump_starts_a_new_episode(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", stamp=lambda topic, t: t if t < 2.0 else t - 50.0)
    data, _ = build(tmp_path, bag)
    assert [e.frames for e in data.index.episodes] == [20, 21]
    for entry, begin in zip(data.index.episodes, (0.0, 2.0), strict=True):
        states = data.rows(entry, "states")
        wanted = np.array([foreign_bags.position(begin + 0.1 * k)[:2] for k in range(entry.frames)])
        np.testing.assert_allclose(states[:, :2], wanted, atol=1e-5)


def test_messages_with_a_stray_stamp_are_dropped(tmp_path):
    far = {1.0: 1e6, 3.0: -1e6}
    bag = foreign_bags.write(tmp_path / "bag", stamp=lambda topic, t: t + far.get(t, 0.0) * ("image" in topic))
    data, summary = build(tmp_path, bag)
    assert summary["dropped"]["messages with a stray stamp"] == 2
    assert sum(e.frames for e in data.index.episodes) >= 38


def test_periods_of_standstill_are_thinned_on_request(tmp_path):
    from jepa_ros.bags.writer import EpisodeWriter

    with EpisodeWriter(tmp_path / "bag", "camera", "world") as bag:
        moved = 0.0
        for k in range(81):
            now = episode_bags.FIRST + k * 10**8
            moved += 0.0 if 20 <= k < 60 else 0.01
            bag.image(now, np.full((48, 64, 3), k, np.uint8))
            bag.joint_state(now, ("a",), [moved], [0.0], [0.0])
    changes = {
        "views": [{"topic": "*"}],
        "joint_states": {"joints": ["a"]},
        "actions": {"source": "states", "scale": 1.0},
    }
    (tmp_path / "plain").mkdir()
    whole, _ = build(tmp_path / "plain", tmp_path / "bag", changes)
    assert [e.frames for e in whole.index.episodes] == [81]
    thinned, summary = build(tmp_path, tmp_path / "bag", changes, thin_still=True)
    # Half a second of standing still stays at both sides.
    assert [e.frames for e in thinned.index.episodes] == [25, 27] and summary["dropped"]["frames of idle spans"] == 29
    again = np.concatenate([thinned.rows(e, "frames") for e in thinned.index.episodes])
    all_frames = whole.rows(whole.index.episodes[0], "frames")
    np.testing.assert_array_equal(again, np.concatenate([all_frames[:25], all_frames[54:]]))


def test_short_episodes_are_dropped(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", skip=lambda topic, t: "image" in topic and 1.02 < t < 1.98)
    data, summary = build(tmp_path, bag, min_ticks=15)
    assert [e.frames for e in data.index.episodes] == [21]
    assert summary["dropped"]["frames of runs that are too short"] == 11


def test_a_camera_slower_than_the_rate_is_refused(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag")
    with pytest.raises(
        InputError, match=r"expected an episode of 1 ticks, found none .*slower than the rate \(20.0 Hz\)"
    ):
        build(tmp_path, bag, rate=30.0)
