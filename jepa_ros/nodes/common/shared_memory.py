"""Shared memory of Fast DDS: a process can do without, and successors of killed processes receive messages.

A participant receives through a port: a ring buffer in /dev/shm that every writer maps once and keeps. The successor
of a killed process takes the same port number. Fast DDS 2.14 (Jazzy) finds that the port's owner is dead and creates a
new buffer of that name, but existing writers keep writing into the old one unless a watchdog marks it as broken. The
watchdog does so if the dead listener was waiting or processing, but not if it was killed between the two
(SharedMemGlobal.hpp, WatchTask::update_status_all_listeners, open_port_internal); then the successor never receives
anything. So a process that takes over a port marks the previous buffer as broken; writers then open the new one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

from jepa_ros.resources import config_path

FOLDER = Path("/dev/shm")
_PORT = re.compile(r"fastrtps_port(\d+)")
# PortNode: port_id, num_listeners, healthy_check_timeout_ms, port_wait_timeout_ms (a third of it),
# max_buffer_descriptors, waiting_count, flags (bit 0: is_port_ok)
_NODE = struct.Struct("<7I")
_SEARCH_BYTES = 4096  # at the start of a segment, in which the PortNode lies
_OK = 1


def use_sockets_only() -> None:
    """Leave shared memory out of this process's transports; to be called before rclpy.init.

    A process that is suspended (Ctrl-Z, a debugger) inside a wait for its port can hold up all who send to it, for as
    long as it is suspended; small messages are nearly as fast through sockets. A profile of the user's own is kept.
    """
    for file in ("fastdds", "fastdds_localhost"):
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            if os.environ.get(name) == str(config_path(f"{file}.xml")):
                os.environ[name] = str(config_path(f"{file}_sockets.xml"))


class _Held(NamedTuple):
    path: Path
    inode: int
    memory: mmap.mmap
    flags_at: int  # byte


class StalePorts:
    """The ports that exist before this process creates its own.

    Never raises: it skips ports of another user or layout, and those that disappear in the meantime.
    """

    def __init__(self, folder: Path = FOLDER):
        self._held: list[_Held] = []
        for path in folder.glob("fastrtps_port*"):
            if number := _PORT.fullmatch(path.name):
                with contextlib.suppress(OSError, ValueError), path.open("r+b") as file:
                    memory = mmap.mmap(file.fileno(), 0)
                    flags_at = find_node(memory, int(number[1])) + _NODE.size - 4
                    self._held.append(_Held(path, path.stat().st_ino, memory, flags_at))

    def mark_replaced(self) -> list[str]:
        """Mark the ports as broken that another one has replaced since, and return their names. To be called once."""
        marked = []
        for held in self._held:
            with contextlib.suppress(OSError), held.memory:
                flags = struct.unpack_from("<I", held.memory, held.flags_at)[0]
                if held.path.stat().st_ino != held.inode and flags & _OK:
                    struct.pack_into("<I", held.memory, held.flags_at, flags & ~_OK)
                    marked.append(held.path.name)
        self._held.clear()
        return sorted(marked)


def find_node(memory: mmap.mmap, number: int) -> int:
    """Return the offset of the PortNode in a port's segment. Raises ValueError where there is none."""
    for begin in range(0, min(_SEARCH_BYTES, len(memory) - _NODE.size), 4):
        port, _, timeout, wait, *_ = _NODE.unpack_from(memory, begin)
        if port == number and timeout and wait == timeout // 3:
            return begin
    raise ValueError(f"port {number}: not a segment of Fast DDS 2.14")
