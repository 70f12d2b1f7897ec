"""Bags that are broken or lack something: what can be read is read and counted, the rest is one line and exit 2."""

import json
import shutil

import pytest
import yaml
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from typer.testing import CliRunner

from helpers import foreign_bags
from helpers.foreign_datasets import mapping_file
from jepa_ros import cli
from jepa_ros.datasets.store import Dataset


def build(tmp_path, *bags, **changes):
    """The command's result, and its summary where there is one."""
    mapping, out = mapping_file(tmp_path, **changes), tmp_path / "data"
    arguments = [*map(str, bags), "--out", str(out), "--mapping", str(mapping), "--size", "16"]
    result = CliRunner().invoke(cli.app, ["data", "build", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    summary = out / "summary.json"
    return result, json.loads(summary.read_text()) if summary.exists() else None


def lines(result):
    """The lines of stderr that say what is wrong."""
    return [line for line in result.stderr.splitlines() if line.startswith("jepa_ros: ")]


def refused(tmp_path, bag, *words, **changes):
    """Build it alone: one line with these words, exit code 2, nothing built, the bag as it was."""
    before = foreign_bags.tree(bag) if bag.is_dir() else None
    result, summary = build(tmp_path, bag, **changes)
    (line,) = lines(result)
    assert result.exit_code == 2 and summary is None and not (tmp_path / "data" / "dataset.json").exists()
    assert f"bag {bag}" in line and "expected" in line and "found" in line
    assert all(word in line for word in words), line
    assert not list(tmp_path.glob("data/shards/*"))
    assert before is None or foreign_bags.tree(bag) == before


def cut(bag, share):
    """The bag with its one recording cut off after a share of it."""
    (recording,) = [p for p in bag.iterdir() if p.suffix in (".mcap", ".db3")]
    content = recording.read_bytes()
    recording.write_bytes(content[: int(share * len(content))])
    return bag


def test_missing_empty_and_non_bag_paths_are_refused(tmp_path):
    refused(tmp_path, tmp_path / "none", "found nothing there")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", "an empty directory")
    (tmp_path / "file.txt").write_text("hello")
    refused(tmp_path, tmp_path / "file.txt", "another kind")


def test_a_bag_without_messages_is_refused(tmp_path):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/camera/image", "sensor_msgs/msg/Image", typestore=foreign_bags.TYPES)
    refused(tmp_path, tmp_path / "bag", "joint states")


@pytest.mark.parametrize(
    "storage, share", [(StoragePlugin.MCAP, 0.5), (StoragePlugin.MCAP, 0.9), (StoragePlugin.SQLITE3, 0.9)]
)
def test_the_readable_part_of_a_truncated_bag_is_used(tmp_path, storage, share):
    bag = cut(foreign_bags.write(tmp_path / "bag", storage=storage, raw=True, seconds=30.0), share)
    before = foreign_bags.tree(bag)
    result, summary = build(tmp_path, bag)
    assert result.exit_code == 2 and len(lines(result)) == 1 and str(bag) in lines(result)[0]
    (entry,) = Dataset(tmp_path / "data").index.episodes
    assert 0.6 * share * 300 < entry.frames < (share + 0.05) * 300
    assert summary["problems"] == [lines(result)[0].removeprefix("jepa_ros: ")]
    assert foreign_bags.tree(bag) == before
    again, _ = build(tmp_path, bag)
    assert again.exit_code == 2 and lines(again) == lines(result), "said again by a run that has nothing to do"


def test_a_recording_of_random_bytes_is_refused(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag")
    next(bag.glob("*.mcap")).write_bytes(b"\xa5" * 5000)
    refused(tmp_path, bag)


def test_a_bag_without_metadata_is_read_completely(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    result, summary = build(tmp_path, bag)
    assert result.exit_code == 2 and "metadata.yaml" in lines(result)[0]
    assert summary["frames"] == {"train": 41, "val": 0, "test": 0}
    assert not (bag / "metadata.yaml").exists()


def test_one_missing_bag_file_does_not_prevent_reading_the_others(tmp_path):
    bag, other = foreign_bags.write(tmp_path / "bag"), foreign_bags.write(tmp_path / "other", seconds=2.0)
    (recording,), (second,) = bag.glob("*.mcap"), other.glob("*.mcap")
    shutil.copy(second, bag / "bag_1.mcap")
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["relative_file_paths"] = ["bag_1.mcap", recording.name]
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    recording.unlink()
    result, summary = build(tmp_path, bag)
    assert result.exit_code == 2 and recording.name in lines(result)[0] and summary["frames"]["train"] == 21


def test_a_missing_topic_is_named_with_the_topics_in_the_bag(tmp_path):
    bag = foreign_bags.write(tmp_path / "dark", cameras=(), commands="trajectory")
    there = "/joint_states (sensor_msgs/msg/JointState, "
    refused(tmp_path, bag, "expected the image topic /camera/image", there)
    bag = foreign_bags.write(tmp_path / "stateless", states=False)
    refused(tmp_path, bag, "expected joint states on the topic /joint_states", "/arm/joint_trajectory")
    bag = foreign_bags.write(tmp_path / "actionless", commands=None)
    actions = {"source": "executed"}
    refused(tmp_path, bag, "expected actions (executed) on the topic executed", there, actions=actions)


def test_a_topic_of_the_wrong_type_is_named(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", commands="twist")
    actions = {"source": "trajectory", "topic": "/cmd_vel"}
    refused(
        tmp_path, bag, "on the topic /cmd_vel (JointTrajectory)", "/cmd_vel (geometry_msgs/msg/Twist, ", actions=actions
    )


def test_missing_joints_are_named_with_those_in_the_bag(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag")
    states = {"joints": ["wrist"]}
    refused(tmp_path, bag, "without the joints ['wrist']", "'shoulder'", joint_states=states)


def test_bags_with_only_broken_images_or_nan_actions_are_refused(tmp_path):
    refused(tmp_path, foreign_bags.write(tmp_path / "broken", broken=lambda t: True), "undecodable images")
    bag = foreign_bags.write(tmp_path / "nan", commands="array")
    fields = {"source": "velocity", "topic": "/velocity_controller/commands", "fields": ["7"]}
    (tmp_path / "n").mkdir()
    refused(tmp_path / "n", bag, "expected usable actions", "NaN or Inf", actions=fields)


def test_joint_velocities_of_other_joints_are_refused_with_the_reason(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", commands="jog")
    actions = {"source": "joint_velocity", "topic": "/servo_node/delta_joint_cmds"}
    states = {"joints": ["gripper_left"]}
    refused(tmp_path, bag, "expected usable actions", "or of other joints", actions=actions, joint_states=states)


def test_malformed_messages_are_counted(tmp_path):
    source, types = foreign_bags.write(tmp_path / "whole"), foreign_bags.TYPES
    with Reader(source) as reader, Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as out:
        made = {c.id: out.add_connection(c.topic, c.msgtype, typestore=types) for c in reader.connections}
        for number, (connection, recorded, raw) in enumerate(reader.messages()):
            spoilt = connection.topic == "/joint_states" and number % 20 == 0
            out.write(made[connection.id], recorded, raw[:10] if spoilt else raw)
    result, summary = build(tmp_path, tmp_path / "bag")
    assert result.exit_code == 0, result.stderr
    assert summary["dropped"]["/joint_states: malformed messages"] > 5
    assert sum(summary["frames"].values()) == 41


def test_one_bad_bag_does_not_prevent_reading_the_others(tmp_path):
    good, bad = foreign_bags.write(tmp_path / "good"), tmp_path / "none"
    dark = foreign_bags.write(tmp_path / "dark", cameras=())
    result, summary = build(tmp_path, bad, good, dark)
    assert result.exit_code == 2 and len(lines(result)) == 2
    assert [str(bad) in lines(result)[0], str(dark) in lines(result)[1]] == [True, True]
    assert summary["frames"]["train"] == 41 and [b["bag"] for b in summary["bags"]] == ["good"]


@pytest.mark.parametrize("option, words", [(["--rate", "0"], "rate"), (["--camera", "/x"], "--mapping")])
def test_invalid_options_are_refused(tmp_path, option, words):
    bag, mapping = foreign_bags.write(tmp_path / "bag"), mapping_file(tmp_path)
    base = ["data", "build", str(bag), "--mapping", str(mapping), "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(cli.app, [*base, *option])
    assert result.exit_code == 2 and words in result.stderr and not (tmp_path / "data").exists()


def test_a_directory_with_unrelated_files_is_not_written_into(tmp_path):
    bag, mapping = foreign_bags.write(tmp_path / "bag"), mapping_file(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    base = ["data", "build", str(bag), "--mapping", str(mapping), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, base)
    assert result.exit_code == 2 and [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_inspect_reports_missing_images_and_truncated_bags(tmp_path):
    bag = foreign_bags.write(tmp_path / "dark", cameras=())
    result = CliRunner().invoke(cli.app, ["data", "inspect", str(bag), "--write", str(tmp_path / "m.yaml")])
    assert result.exit_code == 2 and "expected images" in result.stderr and "/joint_states" in result.stderr
    assert not (tmp_path / "m.yaml").exists()
    bag = cut(foreign_bags.write(tmp_path / "cut", raw=True, seconds=20.0), 0.6)
    result = CliRunner().invoke(cli.app, ["data", "inspect", str(bag)])
    assert result.exit_code == 2 and "/camera/image" in result.stdout and str(bag) in result.stderr
