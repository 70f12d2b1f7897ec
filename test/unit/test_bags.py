"""Bags: what is written is read back at the control rate, and what cannot be read is said in one line."""

import shutil

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from helpers.episode_bags import FIELDS, FIRST, INTRINSICS, SPACE, actions, grey, joints, write_bag
from jepa_ros.bags.cameras import decode_image, read_camera
from jepa_ros.bags.reader import open_bag, read_robot_description
from jepa_ros.bags.typestore import typestore
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.errors import InputError

SIZE = 16


def read(path):
    return list(read_episodes(path, SPACE, FIELDS, SIZE))


def states(times):
    """(n, 5): positions of a and b, their velocities, position of g."""
    q = np.array([joints(t) for t in times])
    return np.column_stack([q[:, :2], np.full(len(q), 0.01), np.full(len(q), -0.02), q[:, 2]])


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "good"
    episodes = [{"split": "train", "ticks": 12}, {"split": "val", "ticks": 8}, {"split": "test", "ticks": 5}]
    return write_bag(path, episodes, urdf="<robot name='r'/>")


def test_written_episodes_are_read_back(bag):
    episodes = read(bag)
    assert [e.split for e in episodes] == ["train", "val", "test"]
    for episode, ticks in zip(episodes, (12, 8, 5), strict=True):
        times = 0.1 * np.arange(ticks + 1)
        assert episode.frames.shape == (ticks + 1, SIZE, SIZE, 3) and episode.frames.dtype == np.uint8
        assert (episode.frames == np.round(100 * times)[:, None, None, None]).all()
        np.testing.assert_allclose(episode.states, states(times), atol=1e-6)
        np.testing.assert_allclose(episode.actions, actions(ticks), atol=1e-6)
        np.testing.assert_allclose(episode.tool, 10 * states(times)[:, :2], atol=1e-6)
        assert episode.states.dtype == episode.actions.dtype == np.float32


def test_robot_description_and_camera_are_read_back(bag, tmp_path):
    assert read_robot_description(bag) == "<robot name='r'/>"
    camera = read_camera(bag)
    assert {k: getattr(camera, k) for k in INTRINSICS} == INTRINSICS
    assert camera.position == (0.1, 0.2, 0.3) and camera.orientation == (0.0, 0.0, 0.6, 0.8)
    assert read_camera(write_bag(tmp_path / "b", [{"split": "train", "ticks": 3}], pose=False)) is None


@pytest.mark.parametrize("rate, offset", [(15.0, 0.0), (15.0, 0.013), (30.0, 0.05), (20.0, 0.0)])
def test_each_tick_takes_the_nearest_frame_and_the_state_at_its_time(tmp_path, rate, offset):
    """Each tick takes the nearest frame; states and actions are those of the frames' own times."""
    (episode,) = read(write_bag(tmp_path / "b", [{"split": "train", "ticks": 12, "rate": rate, "offset": offset}]))
    taken = episode.frames[:, 0, 0, 0] / 100
    frames = np.arange(offset, 1.2 + 1e-6, 1 / rate)
    grid = np.arange(frames[0], min(1.2, frames[-1]) + 1e-6, 0.1)
    assert len(taken) == len(grid)
    assert np.abs(taken - grid).max() <= 0.5 / rate + 0.006
    times = np.array([frames[np.abs(frames - t).argmin()] for t in taken])  # the grey is rounded to 10 ms
    np.testing.assert_allclose(episode.states, states(times), atol=1e-5)
    edges = np.vstack([np.zeros(2), np.cumsum(actions(12), axis=0)])
    travelled = np.stack([np.interp(times, 0.1 * np.arange(13), column) for column in edges.T], axis=1)
    np.testing.assert_allclose(episode.actions, np.diff(travelled, axis=0), atol=1e-4)


def test_camera_jitter_loses_no_tick(tmp_path):
    rng = np.random.default_rng(0)
    times = np.arange(24) / 15 + np.append(0.0, rng.uniform(-0.004, 0.004, 23))
    (episode,) = read(write_bag(tmp_path / "b", [{"split": "train", "ticks": 14, "frame_times": times}]))
    assert len(episode.actions) == 14


def test_missing_frames_end_an_episode(tmp_path):
    times = np.delete(0.1 * np.arange(13), [7, 8])
    (episode,) = read(write_bag(tmp_path / "b", [{"split": "train", "ticks": 12, "frame_times": times}]))
    assert len(episode.actions) == 6 and (episode.frames[:, 0, 0, 0] == 10 * np.arange(7)).all()


def test_episodes_without_frames_or_actions_are_dropped(tmp_path):
    episodes = [
        {"split": "train", "ticks": 6, "frame_times": []},
        {"split": "train", "ticks": 0},
        {"split": "val", "ticks": 3},
    ]
    assert [e.split for e in read(write_bag(tmp_path / "b", episodes))] == ["val"]


def refusal(path, use=read):
    with pytest.raises(InputError) as error:
        use(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text and "expected" in text and "found" in text, text
    return text


def test_a_missing_bag_is_refused(tmp_path):
    assert "found nothing there" in refusal(tmp_path / "none")


def test_a_path_that_is_not_a_bag_is_refused(tmp_path):
    refusal(tmp_path)  # an empty directory
    (tmp_path / "metadata.yaml").write_text("a: [b")
    refusal(tmp_path)
    (tmp_path / "metadata.yaml").write_text("just: this")
    refusal(tmp_path)
    (tmp_path / "file").write_text("hello")
    refusal(tmp_path / "file")


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.7, 0.98, 0.999])
def test_a_truncated_recording_is_refused(bag, tmp_path, keep):
    copy = tmp_path / "b"
    shutil.copytree(bag, copy)
    (recording,) = copy.glob("*.mcap")
    recording.write_bytes(recording.read_bytes()[: int(keep * recording.stat().st_size)])
    refusal(copy)


def test_metadata_without_its_recording_is_refused(bag, tmp_path):
    copy = tmp_path / "b"
    shutil.copytree(bag, copy)
    next(copy.glob("*.mcap")).unlink()
    refusal(copy)


def test_a_recording_with_corrupted_bytes_is_refused(bag, tmp_path):
    copy = tmp_path / "b"
    shutil.copytree(bag, copy)
    (recording,) = copy.glob("*.mcap")
    data = bytearray(recording.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 4000] = b"\xa5" * 4000
    recording.write_bytes(data)
    refusal(copy)


def test_missing_topics_are_named_with_those_in_the_bag(tmp_path):
    path, types = tmp_path / "b", typestore()
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=types)
        message = types.types["std_msgs/msg/String"](data="x")
        writer.write(connection, FIRST, types.serialize_cdr(message, "std_msgs/msg/String"))
    text = refusal(path)
    assert "expected the topics image, joint_states, executed, episode" in text and "/chatter (std_msgs" in text


def test_missing_joints_are_named_with_those_in_the_bag(bag):
    with pytest.raises(InputError, match="/joint_states: messages without the joints .'elbow'., with .*'x'") as error:
        list(read_episodes(bag, SPACE, (("a", "elbow"), ()), SIZE))
    assert str(bag) in str(error.value)


def test_the_bag_reader_is_closed_after_use(bag):
    with open_bag(bag, strict=True) as opened:
        assert sum(t.count for t in opened.topics) > 100
    with pytest.raises(Exception, match="[Oo]pen"):
        next(opened.messages(opened.topics))


def test_images_are_stored_without_loss(tmp_path):
    assert grey(0.3)[0, 0].tolist() == [30, 30, 30]
    from jepa_ros.bags.writer import EpisodeWriter

    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    with EpisodeWriter(tmp_path / "b", "camera", "world") as bag:
        bag.image(FIRST, noise)
        bag.joint_state(FIRST, ("a",), [0.0], [0.0], [0.0])
        bag.executed(FIRST, FIRST, 0.1, "planar_velocity", np.zeros(2), 0)
        bag.episode(FIRST, 0, "train", "play")
    with open_bag(tmp_path / "b") as bag:
        ((_, message),) = bag.decoded(t for t in bag.topics if t.topic == "/image/compressed")
    np.testing.assert_array_equal(decode_image(message), noise)
