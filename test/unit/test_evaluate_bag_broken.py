"""Broken bags: what can be read is evaluated, defects are counted and reported, and the bags stay unchanged."""

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin

from helpers import evaluated_bag as bags
from helpers import sim_arm
from helpers.evaluated_bag import QUICK, bag, expected, model  # noqa: F401  (fixtures)
from helpers.evaluated_bag import evaluate_unchanged as evaluate
from jepa_ros.bags.typestore import typestore

IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"


def test_missing_and_empty_bags_are_refused(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    for path in (tmp_path / "none", tmp_path / "empty", tmp_path / "text.txt"):
        summary, lines = bags.evaluate(path, model, tmp_path / "out", code=2)
        assert summary is None and lines[-1].startswith(f"bag {path}: ")
        assert not (tmp_path / "out").exists(), "refused input leaves nothing behind"


def test_one_missing_bag_does_not_prevent_evaluating_the_others(bag, model, tmp_path, expected):
    summary, lines = bags.evaluate([tmp_path / "none", bag], model, tmp_path / "out", *QUICK, code=2)
    assert summary["together"] == expected and len(lines) == 1 and "found nothing there" in lines[0]


def test_a_bag_without_messages_is_reported(bag, model, tmp_path):
    path = bags.copy(bag, tmp_path / "c", lambda topic, kind, t, data: [])
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert lines == [f"bag {path}: no messages (no topic at all)"] and summary["metrics"]["frames"] == 0


@pytest.mark.parametrize("keep", [0.02, 0.4, 0.9, 0.999])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_intact_part_of_a_truncated_recording_is_evaluated(bag, model, tmp_path, keep, compressed):
    kind = {"mode": CompressionMode.STORAGE, "format": CompressionFormat.ZSTD} if compressed else {}
    whole = bags.copy(bag, tmp_path / "whole", **kind)
    recording = bags.clone(whole, tmp_path / "b")
    recording.write_bytes(recording.read_bytes()[: int(keep * recording.stat().st_size)])
    summary, lines = evaluate(tmp_path / "b", model, tmp_path, code=2)
    assert any("expected a whole recording" in line for line in lines)
    frames = summary["metrics"]["frames"]
    # What a compressor has not put out yet is lost with the cut.
    least = 0 if keep < 0.1 or compressed else int(keep * bags.FRAMES) - 25
    assert least <= frames <= bags.FRAMES and (keep < 0.9 or frames > 0)
    if frames > 60:
        assert summary["together"]["prediction"]["horizons"][0]["prediction_ratio"] > 0


def test_the_intact_part_of_a_truncated_sqlite3_file_is_evaluated(bag, model, tmp_path):
    whole = bags.copy(bag, tmp_path / "whole", plugin=StoragePlugin.SQLITE3)
    recording = bags.clone(whole, tmp_path / "b")
    recording.write_bytes(recording.read_bytes()[: int(0.6 * recording.stat().st_size)])
    summary, _ = evaluate(tmp_path / "b", model, tmp_path, code=2)
    assert 20 < summary["metrics"]["frames"] < bags.FRAMES


def test_a_damaged_chunk_loses_only_its_own_messages(bag, model, tmp_path):
    """Other chunks after it are still read."""
    noise = np.random.default_rng(0)

    def larger(message):  # a megabyte is a chunk
        frame = cv2.resize(cv2.imdecode(message.data, cv2.IMREAD_COLOR), (128, 128))
        frame = np.clip(frame.astype(int) + noise.integers(-20, 20, frame.shape), 0, 255).astype(np.uint8)
        message.data = cv2.imencode(".png", frame)[1].ravel()

    kind = {"mode": CompressionMode.STORAGE, "format": CompressionFormat.ZSTD}
    whole = bags.copy(bag, tmp_path / "whole", bags.edited(bags.IMAGES, larger), **kind)
    recording = bags.clone(whole, tmp_path / "b")
    data = bytearray(recording.read_bytes())
    frames = [at for at in range(len(data)) if data.startswith(b"\x28\xb5\x2f\xfd", at)]
    assert len(frames) > 4, "several chunks"
    data[frames[2] : frames[2] + 400] = b"\xa5" * 400
    recording.write_bytes(data)
    summary, lines = evaluate(tmp_path / "b", model, tmp_path, code=2)
    assert any("found damage after" in line for line in lines)
    times = np.array([row["stamp_ns"] for row in bags.rows(tmp_path / "out")])
    stamps = np.array(bags.stamps(bag, bags.IMAGES, IMAGE_TYPE))
    assert 0.4 * bags.FRAMES < len(times) < bags.FRAMES and times[-1] == stamps[-1] and times[0] == stamps[0]
    assert summary["metrics"]["frames"] == len(times)


def test_without_images_other_topics_are_still_counted(bag, model, tmp_path):
    path = bags.copy(bag, tmp_path / "b", bags.without(bags.IMAGES))
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert len(lines) == 1 and "no images" in lines[0] and "/joint_states (sensor_msgs/msg/JointState" in lines[0]
    assert summary["metrics"]["frames"] == 0 and summary["metrics"]["prediction_ratio@1"] is None
    assert summary["bags"][0]["quality"]["joint_states"]["messages"] == bags.FRAMES


def test_without_actions_everything_else_is_evaluated(bag, model, tmp_path, expected):
    path = bags.copy(bag, tmp_path / "b", bags.without(bags.EXECUTED))
    summary, lines = evaluate(path, model, tmp_path, "--plan-states", 2, code=2)
    assert len(lines) == 1 and "no topic executed of type jepa_msgs/msg/Action" in lines[0]
    assert bags.IMAGES in lines[0]
    assert summary["together"]["prediction"]["situations"] == 0 and summary["together"]["planner"]["states"] == 0
    assert summary["together"]["latents"] == expected["latents"] and summary["together"]["probes"] == expected["probes"]


def test_a_topic_of_the_wrong_type_is_reported(bag, model, tmp_path):
    def change(topic, kind, t, data):
        if topic == bags.JOINTS:
            text = typestore().types["std_msgs/msg/String"](data="no joints")
            return [(topic, "std_msgs/msg/String", t, typestore().serialize_cdr(text, "std_msgs/msg/String"))]
        return [(topic, kind, t, data)]

    path = bags.copy(bag, tmp_path / "b", change)
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert len(lines) == 1 and "/joint_states is std_msgs/msg/String" in lines[0]
    assert summary["metrics"]["frames"] == bags.FRAMES and summary["metrics"]["prediction_ratio@1"] is None


def test_actions_of_another_action_space_are_reported(bag, model, tmp_path):
    def other(message):
        message.action_space = "pose_delta"

    path = bags.copy(bag, tmp_path / "b", bags.edited(bags.EXECUTED, other))
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert len(lines) == 1 and "expected planar_velocity of 2 numbers" in lines[0] and "found pose_delta" in lines[0]
    assert summary["bags"][0]["quality"]["executed"]["messages"] == 0


@pytest.mark.parametrize("missing", [0, 8])
def test_velocities_that_were_not_recorded_are_differences(bag, model, tmp_path, expected, missing):
    def bare(message):
        message.velocity = np.full(missing, np.nan)

    path = bags.copy(bag, tmp_path / "b", bags.edited(bags.JOINTS, bare))
    summary, _ = evaluate(path, model, tmp_path)
    assert summary["bags"][0]["quality"]["joint_states"]["messages"] == bags.FRAMES
    found, wanted = summary["together"]["prediction"], expected["prediction"]
    assert found.keys() == wanted.keys() and found != wanted


def test_planning_needs_a_robot_description_in_the_bag_or_as_option(bag, model, tmp_path, expected):
    path = bags.copy(bag, tmp_path / "b", bags.without("/robot_description"))
    planned = ("--plan-states", 2)
    summary, lines = evaluate(path, model, tmp_path, *planned, code=2)
    assert len(lines) == 1 and "no robot_description" in lines[0]
    assert summary["together"]["planner"]["states"] == 0 and summary["metrics"]["probe_tool_p50_m"] is None
    assert summary["together"]["prediction"] == expected["prediction"]
    (tmp_path / "arm.urdf").write_text(sim_arm.scene().urdf)
    summary, _ = evaluate(path, model, tmp_path, *planned, "--description", tmp_path / "arm.urdf")
    assert summary["together"]["probes"] == expected["probes"] and summary["together"]["planner"]["planned"] == 2


def jumping(message_stamp):
    """For `bags.copy`: the clock jumps back at the fourth episode."""
    types = typestore()
    with_header = ("sensor_msgs", "jepa_msgs")

    def change(topic, kind, t, data):
        if kind.startswith(with_header) and t >= message_stamp:
            message = types.deserialize_cdr(data, kind)
            message.header.stamp.sec -= 10_000
            data = types.serialize_cdr(message, kind)
        return [(topic, kind, t, data)]

    return change


def test_a_clock_that_jumps_back_starts_a_new_segment(bag, model, tmp_path, expected):
    fourth = bags.stamps(bag, "/episode", "jepa_msgs/msg/Episode")[3]
    path = bags.copy(bag, tmp_path / "b", jumping(fourth))
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert len(lines) == 1 and "timestamps jump backwards once, first by" in lines[0]
    assert summary["metrics"]["time_jumps_back"] == 1 and summary["metrics"]["frames"] == bags.FRAMES
    # Episodes are apart anyway, so that nothing else changes.
    assert summary["together"]["prediction"]["horizons"][0]["error"] == pytest.approx(
        expected["prediction"]["horizons"][0]["error"], rel=1e-4
    )


def test_broken_images_are_counted_by_cause(bag, model, tmp_path):
    number = iter(range(10_000))

    def spoiled(message):
        k = next(number)
        if k % 10 == 3:
            message.data = message.data[: len(message.data) // 2]
        if k % 10 == 7:
            message.data = np.zeros(50, np.uint8)

    path = bags.copy(bag, tmp_path / "b", bags.edited(bags.IMAGES, spoiled))
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert len(lines) == 1 and f"30 of {bags.FRAMES} images are broken" in lines[0]
    assert summary["bags"][0]["quality"]["cameras"][0]["dropped"] == {"truncated": 15, "undecodable": 15}
    assert summary["metrics"]["frames"] == bags.FRAMES - 30


def test_undecodable_messages_are_counted(bag, model, tmp_path):
    number = iter(range(10_000))

    def change(topic, kind, t, data):
        spoil = topic == bags.JOINTS and next(number) % 10 == 0
        return [(topic, kind, t, b"\x00\x01\x00\x00rubbish" if spoil else data)]

    path = bags.copy(bag, tmp_path / "b", change)
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert lines == [f"bag {path}: undecodable messages: /joint_states 15"]
    assert summary["metrics"]["unreadable_messages"] == 15


def test_zero_stamps_are_replaced_by_the_recording_time(bag, model, tmp_path, expected):
    def unstamped(message):
        message.header.stamp.sec = message.header.stamp.nanosec = 0

    path = bags.copy(bag, tmp_path / "b", bags.edited(bags.IMAGES, unstamped))
    summary, lines = evaluate(path, model, tmp_path)
    assert lines == [] and summary["together"]["prediction"] == expected["prediction"]
    assert summary["bags"][0]["quality"]["missing"] == [f"stamps of {bags.FRAMES} messages on {bags.IMAGES}"]


def test_frozen_and_repeated_frames_and_gaps_are_counted(bag, model, tmp_path):
    """An episode in which the picture stands still for 2 s, one message that comes twice, and four that are lost."""
    kept, number = {}, iter(range(10_000))

    def change(topic, kind, t, data):
        if topic != bags.IMAGES:
            return [(topic, kind, t, data)]
        k, message = next(number), typestore().deserialize_cdr(data, kind)
        if k == 0:
            kept["data"] = message.data.copy()
        if 0 < k <= 20:
            message.data = kept["data"]
        if 60 <= k < 64:
            return []
        made = (topic, kind, t, typestore().serialize_cdr(message, kind))
        return [made, made] if k == 40 else [made]

    path = bags.copy(bag, tmp_path / "b", change)
    summary, _ = evaluate(path, model, tmp_path)
    quality = summary["bags"][0]["quality"]
    assert quality["frozen_frames"] == 11 and quality["frames"] == bags.FRAMES - 4
    (camera,) = quality["cameras"]
    assert camera["dropped"] == {"duplicate": 1} and camera["gaps"] == 1
    assert camera["longest_gap_s"] == pytest.approx(0.5, abs=0.01) and camera["rate_hz"] == pytest.approx(10, rel=0.01)


def test_files_without_metadata_are_read_in_name_order(bag, model, tmp_path, expected):
    path = bags.split(bag, tmp_path / "b")
    (path / "metadata.yaml").unlink()
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert summary["together"] == expected and len(lines) == 1 and "metadata.yaml, found none" in lines[0]


def test_a_missing_file_that_metadata_names(bag, model, tmp_path):
    path = bags.split(bag, tmp_path / "b")
    (path / "part_10.mcap").unlink()
    summary, lines = evaluate(path, model, tmp_path, code=2)
    assert lines == [f"bag {path}: expected the recordings part_10.mcap, found them missing"]
    assert 0 < summary["metrics"]["frames"] < bags.FRAMES


@pytest.mark.parametrize("metadata", ["a: [b", "just: this", "", "rosbag2_bagfile_information: {}"])
def test_invalid_metadata(bag, model, tmp_path, expected, metadata):
    bags.clone(bag, tmp_path / "b")
    (tmp_path / "b" / "metadata.yaml").write_text(metadata)
    summary, lines = evaluate(tmp_path / "b", model, tmp_path, code=2)
    assert summary["together"] == expected and len(lines) == 1 and "metadata.yaml" in lines[0]
