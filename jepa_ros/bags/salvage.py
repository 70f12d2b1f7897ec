"""What can still be read in the recordings of a broken bag, for the line that refuses it. Nothing is written."""

from __future__ import annotations

import mmap
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

MAGIC = b"\x89MCAP0\r\n"
_CHANNEL, _MESSAGE, _CHUNK = 0x04, 0x05, 0x06
LARGEST_CHUNK = 256_000_000
"""Bytes; a chunk that claims more is garbage."""
LARGEST_DATABASE = 2**40


def describe_readable(bag: Path) -> str:
    """How many messages of which topics are whole in the recordings in a bag's directory, as the end of a sentence."""
    counts: Counter[str] = Counter()
    for path in sorted(bag.iterdir()) if bag.is_dir() else ():
        count = {".mcap": _mcap_topics, ".db3": _sqlite_topics}.get(path.suffix)
        if count is not None:
            try:
                counts.update(count(path))
            except Exception:  # garbage may trip anything; what was counted of other files stays
                continue
    if not counts:
        return "no message in it can be read"
    topics = ", ".join(f"{topic} {count}" for topic, count in sorted(counts.items()))
    return f"{counts.total()} messages in it can be read ({topics})"


def _mcap_topics(path: Path) -> list[str]:
    """The topic of every whole message of an mcap file, read from its beginning on, without its index."""
    names: dict[int, str] = {}
    found: list[str] = []
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if data[: len(MAGIC)] != MAGIC:
        return []
    try:
        for channel in _messages(data[len(MAGIC) :], names):
            found.append(names.get(channel, "of an unknown topic"))
    except (struct.error, ValueError, KeyError, RuntimeError):  # a record or a chunk that is no longer one
        pass
    return found


def _messages(data: memoryview, names: dict[int, str]) -> Iterator[int]:
    """The channel of every message record, up to where the records stop making sense; fills in the channels' names."""
    at = 0
    while at + 9 <= len(data):
        kind, size = struct.unpack_from("<BQ", data, at)
        content = data[at + 9 : at + 9 + size]
        if len(content) < size and kind != _CHUNK:  # of a chunk that is cut off the first messages may be whole
            return
        at += 9 + size
        if kind == _CHANNEL:
            number, _, length = struct.unpack_from("<HHI", content)
            names[number] = str(content[8 : 8 + length], "utf-8", "replace")
        elif kind == _MESSAGE:
            yield struct.unpack_from("<H", content)[0]
        elif kind == _CHUNK:
            yield from _messages(_unpacked(content), names)


def _unpacked(chunk: memoryview) -> memoryview:
    """The records in a chunk."""
    size, _, length = struct.unpack_from("<QII", chunk, 16)
    compression = str(chunk[32 : 32 + length], "utf-8")
    records = chunk[32 + length + 8 :]
    if size > LARGEST_CHUNK:
        raise ValueError("a chunk that claims too much")
    return records if not compression else memoryview(DECOMPRESSORS[compression](bytes(records), size))


def _sqlite_topics(path: Path) -> list[str]:
    """The topic of every message of a sqlite3 file, up to the first page that cannot be read."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db3")
        shutil.copyfile(path, copy)
        extend_to_size(copy)
        database = sqlite3.connect(copy)
        try:
            names = dict(database.execute("SELECT id, name FROM topics"))
            for topic, _ in database.execute("SELECT topic_id, data FROM messages"):
                found += [str(names[topic])] if topic in names else []
        except sqlite3.Error:
            pass
        finally:
            database.close()
    return found


def extend_to_size(path: Path) -> None:
    """Give a sqlite3 file that was cut off the length in its header: sqlite reads nothing of a shorter one."""
    with path.open("r+b") as file:
        header = file.read(100)
        page = int.from_bytes(header[16:18], "big")
        size = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
        if path.stat().st_size < size <= LARGEST_DATABASE:
            file.truncate(size)
