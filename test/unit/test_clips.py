"""Pictures of bags: image topics of any robot are read, and what follows a gap is not joined to what was before."""

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from helpers.video_bags import COMPRESSED, FIRST, PERIOD, RAW, times, video, wander, write_video
from jepa_ros.bags.cameras import read_frame_runs
from jepa_ros.errors import InputError

FRAMES = wander(20)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("kind, name", [(RAW, "/camera/color/image_raw"), (COMPRESSED, "/camera/image/compressed")])
def test_frames_are_read_with_their_stamps(tmp_path, storage, kind, name):
    bag = write_video(tmp_path / "b", {name: (kind, video(FRAMES, times(20)))}, storage)
    ((run,), unusable) = read_frame_runs(bag, [name], 16)
    assert unusable == 0 and run.source == f"{bag} {name}"
    np.testing.assert_array_equal(run.frames, FRAMES)
    np.testing.assert_allclose(np.diff(run.stamps), PERIOD * 1e-9, atol=1e-6)
    assert run.stamps[0] == pytest.approx(FIRST * 1e-9)


def test_an_image_topic_is_found_with_and_without_slash_and_transport(tmp_path):
    bag = write_video(tmp_path / "b", {"/arm/image/compressed": (COMPRESSED, video(FRAMES, times(20)))})
    for name in ("arm/image", "/arm/image", "/arm/image/compressed"):
        assert len(read_frame_runs(bag, [name], 16)[0][0].frames) == 20
    both = {"/image": (RAW, video(FRAMES[:5], times(5))), "/image/compressed": (COMPRESSED, video(FRAMES, times(20)))}
    bag = write_video(tmp_path / "both", both)
    assert len(read_frame_runs(bag, ["image"], 16)[0][0].frames) == 5, "the raw ones"


def test_frames_of_several_topics_are_never_joined(tmp_path):
    left, right = wander(6, 1), wander(8, 2)
    topics = {"/left": (RAW, video(left, times(6))), "/right": (RAW, video(right, times(8, PERIOD // 2)))}
    runs, _ = read_frame_runs(write_video(tmp_path / "b", topics), ["left", "right"], 16)
    assert [s.source.split()[-1] for s in runs] == ["left", "right"]
    for run, frames in zip(runs, (left, right), strict=True):
        np.testing.assert_array_equal(run.frames, frames)


def test_a_gap_or_a_backward_time_jump_starts_a_new_segment(tmp_path):
    steps = np.ones(19)
    steps[4], steps[9], steps[14] = 1.4, 1.6, -30
    stamps = FIRST + 100 * PERIOD + np.concatenate([[0], np.cumsum(steps * PERIOD).astype(int)])
    recorded = times(20)
    messages = [(s, r, f, None) for s, r, f in zip(stamps, recorded, FRAMES, strict=True)]
    runs, _ = read_frame_runs(write_video(tmp_path / "b", {"/image": (RAW, messages)}), ["image"], 16)
    assert [len(s.frames) for s in runs] == [10, 5, 5]
    np.testing.assert_array_equal(np.concatenate([s.frames for s in runs]), FRAMES)


def test_a_repeated_stamp_is_dropped_and_makes_no_gap(tmp_path):
    stamps = np.repeat(times(10), 2)
    ((run,), _) = read_frame_runs(write_video(tmp_path / "b", {"/image": (RAW, video(FRAMES, stamps))}), ["image"], 16)
    np.testing.assert_array_equal(run.frames, FRAMES[::2])


def test_headers_without_a_stamp_use_the_recording_time(tmp_path):
    messages = [(0, t, f, None) for t, f in zip(times(20), FRAMES, strict=True)]
    ((run,), _) = read_frame_runs(write_video(tmp_path / "b", {"/image": (RAW, messages)}), ["image"], 16)
    assert run.stamps[0] == pytest.approx(FIRST * 1e-9) and len(run.frames) == 20


def test_an_undecodable_image_is_counted_and_leaves_a_gap(tmp_path):
    messages = video(FRAMES, times(20))
    messages[7] = (*messages[7][:3], np.frombuffer(b"no picture", np.uint8))
    runs, unusable = read_frame_runs(write_video(tmp_path / "b", {"/image": (COMPRESSED, messages)}), ["image"], 16)
    assert unusable == 1 and [len(s.frames) for s in runs] == [7, 12]


def test_images_are_cropped_and_scaled_as_in_the_nodes(tmp_path):
    wide = np.zeros((32, 48, 3), np.uint8)
    wide[:, 8:40] = 200
    bag = write_video(tmp_path / "b", {"/image": (RAW, video([wide] * 3, times(3)))})
    assert (read_frame_runs(bag, ["image"], 16)[0][0].frames == 200).all()


def test_a_missing_image_topic_is_refused_with_the_topics_in_the_bag(tmp_path):
    bag = write_video(tmp_path / "b", {"/left/image_raw": (RAW, video(FRAMES[:3], times(3)))})
    with pytest.raises(InputError, match="b: expected the image topic image, found /left/image_raw"):
        read_frame_runs(bag, ["image"], 16)
    with pytest.raises(InputError, match="expected a rosbag2 directory or file, found nothing there"):
        read_frame_runs(tmp_path / "none", ["image"], 16)
    broken = [(t, t, FRAMES[0], np.zeros(5, np.uint8)) for t in times(4)]
    bag = write_video(tmp_path / "broken", {"/image": (RAW, broken)})
    with pytest.raises(InputError, match="image: expected images, found 4 undecodable ones: image data: expected"):
        read_frame_runs(bag, ["image"], 16)
    bag = write_video(tmp_path / "empty", {"/image": (RAW, [])})
    with pytest.raises(InputError, match="image: expected images, found none"):
        read_frame_runs(bag, ["image"], 16)


def test_a_corrupted_bag_is_refused(tmp_path):
    bag = write_video(tmp_path / "b", {"/image": (RAW, video(FRAMES, times(20)))}, StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    data = bytearray(file.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(InputError, match="b: .*expected .*, found"):
        read_frame_runs(bag, ["image"], 16)
