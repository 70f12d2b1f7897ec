"""Row 24: of a broken bag what is readable is counted, the command exits with 2, and the bag stays as it is."""

import hashlib
import re
import shutil

import pytest
import yaml
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from helpers import reach_bag, sim_arm
from helpers.checkpoint_files import write_model
from helpers.commands import refused
from helpers.training_recipes import TINY
from jepa_ros.bags.recovery import describe_readable
from jepa_ros.bags.typestore import typestore
from jepa_ros.errors import InputError
from jepa_ros.training.pretraining.run import pretrain
from jepa_ros.training.train_model import train_model

pytestmark = pytest.mark.fault(24)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return reach_bag.write(tmp_path_factory.mktemp("bag") / "play", ticks=12)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def rewritten(bag, to, storage, leave_out=()):
    with Reader(bag) as reader, Writer(to, version=9, storage_plugin=storage) as writer:
        made = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=typestore())
            for c in reader.connections
            if c.topic not in leave_out
        }
        for connection, stamp, raw in reader.messages():
            if connection.id in made:
                writer.write(made[connection.id], stamp, raw)
    return to


def no_metadata(bag, to):
    shutil.copytree(bag, to)
    (to / "metadata.yaml").unlink()
    return 1.0


def truncated(bag, to):
    shutil.copytree(bag, to)
    (recording,) = to.glob("*.mcap")
    recording.write_bytes(recording.read_bytes()[: int(0.6 * recording.stat().st_size)])
    return 0.6


def truncated_sqlite(bag, to):
    rewritten(bag, to, StoragePlugin.SQLITE3)
    (recording,) = to.glob("*.db3")
    recording.write_bytes(recording.read_bytes()[: int(0.6 * recording.stat().st_size)])
    return 0.3  # rows lie between the pages of indices


def damaged_inside(bag, to):
    shutil.copytree(bag, to)
    (recording,) = to.glob("*.mcap")
    data = bytearray(recording.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = b"\xa5" * 3000
    recording.write_bytes(data)
    return 0.4


def no_recording(bag, to):
    shutil.copytree(bag, to)
    next(to.glob("*.mcap")).unlink()
    return 0.0


def nothing(bag, to):
    to.mkdir()
    return 0.0


def content(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("spoil", [no_metadata, truncated, truncated_sqlite, damaged_inside, no_recording, nothing])
def test_readable_messages_of_a_broken_bag_are_counted_and_it_is_unchanged(bag, recipe, tmp_path, spoil):
    share = spoil(bag, tmp_path / "broken")
    before = content(tmp_path / "broken")
    with Reader(bag) as reader:
        total = reader.message_count
    lines = []
    for use in (
        lambda: train_model(data=tmp_path / "broken", out=tmp_path / "out", recipe=str(recipe)),
        lambda: pretrain(bags=[tmp_path / "broken"], out=tmp_path / "out"),
    ):
        with pytest.raises(InputError) as error:
            use()
        lines.append(str(error.value))
    for line in lines:
        assert str(tmp_path / "broken") in line
        count = int(found[1]) if (found := re.search(r"; (\d+) messages in it can be read", line)) else 0
        assert count >= 0.75 * share * total and (count == total) == (share == 1.0), (count, total, line)
        assert share == 0.0 or "/joint_states " in line
    assert content(tmp_path / "broken") == before and not (tmp_path / "out" / "checkpoint").exists()


def test_a_missing_topic_is_named_with_those_in_the_bag(bag, recipe, tmp_path):
    rewritten(bag, tmp_path / "broken", StoragePlugin.MCAP, leave_out=("/executed",))
    with pytest.raises(InputError, match="expected the topics executed, found .*/joint_states"):
        train_model(data=tmp_path / "broken", out=tmp_path / "out", recipe=str(recipe))


def test_a_bag_without_messages_is_refused(bag, recipe, tmp_path):
    with Reader(bag) as reader, Writer(tmp_path / "b", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for c in reader.connections:
            writer.add_connection(c.topic, c.msgtype, typestore=typestore())
    with pytest.raises(InputError, match=r"expected .*, found"):
        train_model(data=tmp_path / "b", out=tmp_path / "out", recipe=str(recipe))


def test_commands_exit_with_2_and_one_line(bag, recipe, tmp_path):
    truncated(bag, tmp_path / "broken")
    before = content(tmp_path / "broken")
    write_model(tmp_path / "m", joints=sim_arm.robot().joints, gripper=sim_arm.robot().gripper)
    for arguments in (
        ("train", "model", "--data", tmp_path / "broken", "--recipe", recipe, "--out", tmp_path / "out"),
        ("pretrain", tmp_path / "broken", "--out", tmp_path / "out"),
        ("models", "inspect", tmp_path / "m", "--data", tmp_path / "broken", "--out", tmp_path / "out"),
    ):
        assert "messages in it can be read" in refused(*arguments)
    assert content(tmp_path / "broken") == before


def test_files_with_only_a_bag_header_have_no_readable_message(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"\x89MCAP0\r\n" + b"\xff" * 100)
    (tmp_path / "b.mcap").write_bytes(b"")
    (tmp_path / "c.db3").write_bytes(b"SQLite format 3\x00" + bytes(100))
    assert describe_readable(tmp_path) == "no message in it can be read"
