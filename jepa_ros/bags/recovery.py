"""The whole messages in a recording that a reader refuses: truncated, without an index, damaged. Nothing is written."""

from __future__ import annotations

import heapq
import mmap
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.rosbag2.storage_mcap import DECOMPRESSORS, zstd

_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_KNOWN = 0x0F
_PRIVATE = 0x80
"""Kinds of records from here on are anybody's own, and are skipped."""
LARGEST_RECORD = 1 << 30
"""Bytes; a record that claims more is garbage."""


WINDOW = 32


class Rescued(NamedTuple):
    """A message: recorded is the time of recording in ns, data its serialised bytes."""

    topic: str
    msgtype: str
    recorded: int
    data: bytes


def rescued(path: Path) -> Iterator[Rescued]:
    """The messages of an .mcap or .db3 file by the time of recording, up to where the file makes no sense any more.

    Of a chunk that is cut off its first messages come; a chunk that cannot be unpacked is left out.

    Without an index they lie as they were written: those that are less than WINDOW messages out of order are put
    right."""
    waiting: list[tuple[int, int, Rescued]] = []
    for number, message in enumerate(_mcap(path) if path.suffix == ".mcap" else _sqlite(path)):
        heapq.heappush(waiting, (message.recorded, number, message))
        if len(waiting) > WINDOW:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def full_type(name: str) -> str:
    """sensor_msgs/msg/Image of sensor_msgs/Image, as some writers call it."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name


def _mcap(path: Path) -> Iterator[Rescued]:
    channels: dict[int, tuple[str, str]] = {}
    schemas: dict[int, str] = {}
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while (record := _record(file)) is not None:
            kind, content = record
            if kind == _DATA_END or not (0 < kind <= _KNOWN or kind >= _PRIVATE):
                return
            if kind == _CHUNK:
                yield from _of_chunk(content, schemas, channels)
            else:
                yield from _of_record(kind, content, schemas, channels)


def _record(file: BinaryIO) -> tuple[int, bytes] | None:
    """Kind and content of the next record; None where there is no whole one, but a chunk may be cut off."""
    head = file.read(9)
    if len(head) < 9:
        return None
    kind, size = struct.unpack("<BQ", head)
    content = file.read(min(size, LARGEST_RECORD))
    return (kind, content) if len(content) == size or kind == _CHUNK else None


def _of_chunk(content: bytes, schemas: dict[int, str], channels: dict[int, tuple[str, str]]) -> Iterator[Rescued]:
    try:
        records = _unpacked(content)
    except Exception:  # garbage may trip any decompressor; the next chunk may be whole
        return
    at = 0
    while at + 9 <= len(records):
        kind, size = struct.unpack_from("<BQ", records, at)
        part = records[at + 9 : at + 9 + size]
        if len(part) < size:
            return
        at += 9 + size
        yield from _of_record(kind, part, schemas, channels)


def _of_record(
    kind: int, content: bytes, schemas: dict[int, str], channels: dict[int, tuple[str, str]]
) -> Iterator[Rescued]:
    try:
        if kind == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            schemas[number] = full_type(_text(content, 2)[0])
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            channels[number] = _text(content, 4)[0], schemas.get(schema, "")
        elif kind == _MESSAGE:
            number, _, recorded = struct.unpack_from("<HIQ", content)
            if number in channels:
                yield Rescued(*channels[number], recorded, bytes(content[22:]))
    except struct.error:  # too short for what it says that it is
        return


def _unpacked(chunk: bytes) -> bytes:
    """The records in a chunk, as far as they are there."""
    size, _ = struct.unpack_from("<QI", chunk, 16)
    compression, at = _text(chunk, 28)
    if size > LARGEST_CHUNK:
        raise ValueError("a chunk that claims too much")
    packed = chunk[at + 8 :]
    if compression == "zstd":  # what comes before the cut of a truncated frame can be had
        return zstd.ZstdDecompressor().decompress(packed, max_length=size)
    return DECOMPRESSORS[compression](packed, size)


def _text(content: bytes, at: int) -> tuple[str, int]:
    """A string with its length before it, and where it ends."""
    (length,) = struct.unpack_from("<I", content, at)
    return str(bytes(content[at + 4 : at + 4 + length]), "utf-8", "replace"), at + 4 + length


def _sqlite(path: Path) -> Iterator[Rescued]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db3")
        shutil.copyfile(path, copy)
        extend_to_size(copy)
        database = sqlite3.connect(copy)
        try:
            topics = {
                i: (str(n), full_type(str(t))) for i, n, t in database.execute("SELECT id, name, type FROM topics")
            }
            for number, recorded, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
                if number in topics and isinstance(data, bytes):
                    yield Rescued(*topics[number], int(recorded), data)
        except (sqlite3.Error, ValueError, TypeError):  # from the first page on that cannot be read
            return
        finally:
            database.close()


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
