#!/bin/bash
# rosbags 0.11.9, AnyReader of two bags: messages of one bag are decoded with the other bag's definition.
# Both bags hold demo_msgs/msg/State, recorded with the fields in another order (a message that changed between two releases).
# Each bag holds its own definition and is read correctly alone. Opened together, x and y of one of them are swapped, without
# a warning. jepa_ros opens each bag by itself.
set -u
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check rosbags==0.11.9 2>/dev/null || exit 2
cd "$work" && venv/bin/python - <<'PYTHON'
import importlib.metadata
import sys
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

NAME = "demo_msgs/msg/State"


def write(path, definition, values):
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition, NAME))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/state", NAME, typestore=store)
        writer.write(connection, 1, store.serialize_cdr(store.types[NAME](*values), NAME))


def read(*paths):
    with AnyReader([Path(path) for path in paths]) as reader:
        messages = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages()]
    return [(message.x, message.y) for message in messages]


write("former", "float64 x\nfloat64 y\n", (1.0, 2.0))
write("present", "float64 y\nfloat64 x\n", (2.0, 1.0))
alone, together = read("former") + read("present"), read("former", "present")
print("rosbags", importlib.metadata.version("rosbags"), "| written: x=1, y=2 in both bags")
print("  each alone:", alone)
print("  together:  ", together)
sys.exit(not (alone == [(1.0, 2.0)] * 2 and together != alone))
PYTHON
