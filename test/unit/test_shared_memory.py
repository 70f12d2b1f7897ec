"""Ports in shared memory are given up where another one has taken their place, and nothing else is touched."""

import struct

import pytest

from jepa_ros.nodes.common.shared_memory import Ports

FLAGS = 300


def write(path, number, timeout=1000):
    """A port as Fast DDS lays it out, as far as it matters, in place of any that is there; the open file."""
    path.unlink(missing_ok=True)
    fields = struct.pack("<7I", number, 1, timeout, timeout // 3, 512, 1, 7)
    path.write_bytes(bytes(FLAGS - 24) + fields + bytes(5000))
    return path.open("rb")


def flags(file):
    file.seek(FLAGS)
    return struct.unpack("<I", file.read(4))[0]


def test_who_has_mapped_a_port_that_was_replaced_is_told_and_nobody_else(tmp_path):
    path, other = tmp_path / "fastrtps_port7411", tmp_path / "fastrtps_port7413"
    with write(path, 7411) as old, write(other, 7413) as kept:
        ports = Ports(tmp_path)
        with write(path, 7411) as new:
            assert ports.give_up_replaced() == ["fastrtps_port7411"]
            assert (flags(old), flags(new), flags(kept)) == (6, 7, 7)
        assert Ports(tmp_path).give_up_replaced() == []


@pytest.mark.parametrize("spoil", ["another layout", "empty", "another number", "gone"])
def test_what_is_not_known_is_left_alone(tmp_path, spoil):
    path = tmp_path / "fastrtps_port7411"
    with write(path, 7413 if spoil == "another number" else 7411, 0 if spoil == "another layout" else 1000) as old:
        if spoil == "empty":
            path.write_bytes(b"")
        before = path.read_bytes()
        ports = Ports(tmp_path)
        path.unlink() if spoil == "gone" else write(path, 7411).close()
        assert ports.give_up_replaced() == []
        old.seek(0)
        assert old.read() == before
