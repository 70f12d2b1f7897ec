"""Fast DDS's shared-memory ports of processes that were killed: given up, so that their successors are heard.

A participant hears by a port, a ring buffer in /dev/shm that all who write to it map once and keep. The successor of a
killed process takes the same port number. Fast DDS 2.14 (Jazzy) finds that the port's owner is dead and makes a new
buffer of that name; but who has mapped the old one writes on into it, for good, unless a watchdog declares it broken.
It does so where the dead listener was waiting or at work, not where it was killed between the two
(SharedMemGlobal.hpp, WatchTask::update_status_all_listeners, open_port_internal): then the successor is deaf for ever.
So whoever takes a port over declares the buffer that lay there before broken; writers then open the new one.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import struct
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("/dev/shm")
_PORT = re.compile(r"fastrtps_port(\d+)")
# PortNode: port_id, num_listeners, healthy_check_timeout_ms, port_wait_timeout_ms (a third of it),
# max_buffer_descriptors, waiting_count, flags (bit 0: is_port_ok)
_NODE = struct.Struct("<7I")
_WITHIN = 4096  # bytes from the segment's begin in which it lies
_OK = 1


class _Held(NamedTuple):
    path: Path
    inode: int
    memory: mmap.mmap
    flags_at: int  # byte


class Ports:
    """The ports that there are before this process has any of its own.

    Never raises: a port of another user, of another layout or that goes meanwhile is left alone.
    """

    def __init__(self, folder: Path = FOLDER):
        self._held: list[_Held] = []
        for path in folder.glob("fastrtps_port*"):
            if number := _PORT.fullmatch(path.name):
                with contextlib.suppress(OSError, ValueError), path.open("r+b") as file:
                    memory = mmap.mmap(file.fileno(), 0)
                    flags_at = find_node(memory, int(number[1])) + _NODE.size - 4
                    self._held.append(_Held(path, path.stat().st_ino, memory, flags_at))

    def give_up_replaced(self) -> list[str]:
        """Declare broken those in whose place there is another one by now; their names. To be called once."""
        given_up = []
        for held in self._held:
            with contextlib.suppress(OSError), held.memory:
                flags = struct.unpack_from("<I", held.memory, held.flags_at)[0]
                if held.path.stat().st_ino != held.inode and flags & _OK:
                    struct.pack_into("<I", held.memory, held.flags_at, flags & ~_OK)
                    given_up.append(held.path.name)
        self._held.clear()
        return sorted(given_up)


def find_node(memory: mmap.mmap, number: int) -> int:
    """Where in a port's segment the fields begin that say what it is. Raises ValueError where none are known."""
    for begin in range(0, min(_WITHIN, len(memory) - _NODE.size), 4):
        port, _, timeout, wait, *_ = _NODE.unpack_from(memory, begin)
        if port == number and timeout and wait == timeout // 3:
            return begin
    raise ValueError(f"port {number}: expected a segment of Fast DDS 2.14, found another")
