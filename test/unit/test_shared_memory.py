"""A shared-memory port that another one has replaced is marked as broken, nothing else; the gate does without any."""

import os
import struct
from xml.etree import ElementTree

import pytest

from jepa_ros.nodes.common.shared_memory import StalePorts, use_sockets_only
from jepa_ros.resources import config_path

FLAGS = 300


def write(path, number, timeout=1000):
    """Replace the file by a port in the layout of Fast DDS, as far as it matters; return it, open."""
    path.unlink(missing_ok=True)
    fields = struct.pack("<7I", number, 1, timeout, timeout // 3, 512, 1, 7)
    path.write_bytes(bytes(FLAGS - 24) + fields + bytes(5000))
    return path.open("rb")


def flags(file):
    file.seek(FLAGS)
    return struct.unpack("<I", file.read(4))[0]


def test_only_a_replaced_shared_memory_port_is_marked_as_broken(tmp_path):
    path, other = tmp_path / "fastrtps_port7411", tmp_path / "fastrtps_port7413"
    with write(path, 7411) as old, write(other, 7413) as kept:
        ports = StalePorts(tmp_path)
        with write(path, 7411) as new:
            assert ports.mark_replaced() == ["fastrtps_port7411"]
            assert (flags(old), flags(new), flags(kept)) == (6, 7, 7)
        assert StalePorts(tmp_path).mark_replaced() == []


@pytest.mark.parametrize("spoil", ["another layout", "empty", "another number", "gone"])
def test_shared_memory_ports_of_unknown_layout_are_not_changed(tmp_path, spoil):
    path = tmp_path / "fastrtps_port7411"
    with write(path, 7413 if spoil == "another number" else 7411, 0 if spoil == "another layout" else 1000) as old:
        if spoil == "empty":
            path.write_bytes(b"")
        before = path.read_bytes()
        ports = StalePorts(tmp_path)
        path.unlink() if spoil == "gone" else write(path, 7411).close()
        assert ports.mark_replaced() == []
        old.seek(0)
        assert old.read() == before


def texts(file, tag):
    return [element.text for element in ElementTree.parse(file).iter() if element.tag.endswith("}" + tag)]


@pytest.mark.parametrize("name", ["fastdds", "fastdds_localhost"])
def test_the_gate_uses_our_profiles_without_shared_memory(monkeypatch, name):
    ours = str(config_path(f"{name}.xml"))
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", ours)
    use_sockets_only()
    sockets = os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"]
    assert texts(ours, "type") == ["SHM", "UDPv4"] and texts(sockets, "type") == ["UDPv4"]
    assert texts(ours, "address") == texts(sockets, "address")


def test_a_profile_of_the_user_s_own_decides_about_shared_memory(monkeypatch):
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    use_sockets_only()
    assert os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml"
