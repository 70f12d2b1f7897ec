"""Recovering whole messages from recordings that are truncated, without an index, or damaged.

Files are only read, never changed.
"""

from __future__ import annotations

import heapq
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.rosbag2.storage_mcap import DECOMPRESSORS, zstd

from jepa_ros.bags.typestore import full_type, recorded_types

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_LAST_STANDARD = 0x0F
_FIRST_PRIVATE = 0x80  # record types from here on are private extensions and are skipped
LARGEST_RECORD_BYTES = 1 << 30
LARGEST_CHUNK_BYTES = 256_000_000
LARGEST_DATABASE_BYTES = 1 << 40  # sizes above these are taken for garbage
SORT_WINDOW = 32  # messages within which recovered messages are sorted by time


class RawMessage(NamedTuple):
    """A message as recorded. recorded: time of recording in ns. data: serialised (CDR). definition: of its type, in the
    bag (ros2msg); or empty."""

    topic: str
    msgtype: str
    recorded: int
    data: bytes
    definition: str = ""

    def deserialise(self):
        """Return the message object. Malformed bytes may raise any exception: catch them all."""
        return recorded_types(self.msgtype, self.definition).deserialize_cdr(self.data, self.msgtype)


def recover_messages(path: Path) -> Iterator[RawMessage]:
    """Yield the readable messages of an .mcap or .db3 file by time of recording, up to the first malformed record.

    A truncated chunk gives its first messages; a chunk that cannot be decompressed is skipped. Without an index the
    messages are in the order of writing: those up to SORT_WINDOW messages out of order are sorted.
    """
    pending: list[tuple[int, int, RawMessage]] = []
    for number, message in enumerate(_read_mcap(path) if path.suffix == ".mcap" else _read_sqlite(path)):
        heapq.heappush(pending, (message.recorded, number, message))
        if len(pending) > SORT_WINDOW:
            yield heapq.heappop(pending)[2]
    while pending:
        yield heapq.heappop(pending)[2]


def describe_readable(bag: Path) -> str:
    """Return how many messages of which topics are readable in a bag's directory or file, as the end of a sentence."""
    counts: Counter[str] = Counter()
    for path in sorted(bag.iterdir()) if bag.is_dir() else [bag]:
        if path.suffix in (".mcap", ".db3"):
            counts.update(message.topic for message in recover_messages(path))
    if not counts:
        return "no message in it can be read"
    topics = ", ".join(f"{topic} {count}" for topic, count in sorted(counts.items()))
    return f"{counts.total()} messages in it can be read ({topics})"


Schemas = dict[int, tuple[str, str]]  # type and its definition, by the schema's number
Channels = dict[int, tuple[str, str, str]]  # topic, type and its definition, by the channel's number


# -- mcap --------------------------------------------------------------------------------------------------------------


def _read_mcap(path: Path) -> Iterator[RawMessage]:
    channels: Channels = {}
    schemas: Schemas = {}
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while (record := _next_record(file)) is not None:
            kind, content = record
            if kind == _DATA_END or not (0 < kind <= _LAST_STANDARD or kind >= _FIRST_PRIVATE):
                return
            if kind == _CHUNK:
                yield from _read_chunk(content, schemas, channels)
            else:
                yield from _read_record(kind, content, schemas, channels)


def _next_record(file: BinaryIO) -> tuple[int, bytes] | None:
    """Return type and content of the next record; None at a truncated one, except a chunk, whose start is usable."""
    head = file.read(9)
    if len(head) < 9:
        return None
    kind, size = struct.unpack("<BQ", head)
    content = file.read(min(size, LARGEST_RECORD_BYTES))
    return (kind, content) if len(content) == size or kind == _CHUNK else None


def _read_chunk(content: bytes, schemas: Schemas, channels: Channels) -> Iterator[RawMessage]:
    try:
        records = _decompress_chunk(content)
    except Exception:  # a decompressor may raise anything on garbage; the next chunk may be whole
        return
    at = 0
    while at + 9 <= len(records):
        kind, size = struct.unpack_from("<BQ", records, at)
        part = records[at + 9 : at + 9 + size]
        if len(part) < size:
            return
        at += 9 + size
        yield from _read_record(kind, part, schemas, channels)


def _read_record(kind: int, content: bytes, schemas: Schemas, channels: Channels) -> Iterator[RawMessage]:
    try:
        if kind == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            name, at = _read_text(content, 2)
            encoding, at = _read_text(content, at)
            definition = _read_text(content, at)[0] if encoding == "ros2msg" else ""
            schemas[number] = full_type(name), definition
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            channels[number] = _read_text(content, 4)[0], *schemas.get(schema, ("", ""))
        elif kind == _MESSAGE:
            number, _, recorded = struct.unpack_from("<HIQ", content)
            if number in channels:
                topic, msgtype, definition = channels[number]
                yield RawMessage(topic, msgtype, recorded, bytes(content[22:]), definition)
    except struct.error:  # shorter than its type needs
        return


def _decompress_chunk(chunk: bytes) -> bytes:
    """Return the records in a chunk; of a truncated chunk those before the end."""
    size, _ = struct.unpack_from("<QI", chunk, 16)
    compression, at = _read_text(chunk, 28)
    if size > LARGEST_CHUNK_BYTES:
        raise ValueError("the chunk's claimed size is implausible")
    packed = chunk[at + 8 :]
    if not compression:
        return packed
    if compression == "zstd":  # returns the first part of a truncated frame
        return zstd.ZstdDecompressor().decompress(packed, max_length=size)
    return DECOMPRESSORS[compression](packed, size)


def _read_text(content: bytes, at: int) -> tuple[str, int]:
    """Return a length-prefixed string and the position after it."""
    (length,) = struct.unpack_from("<I", content, at)
    return str(bytes(content[at + 4 : at + 4 + length]), "utf-8", "replace"), at + 4 + length


# -- sqlite3 -----------------------------------------------------------------------------------------------------------


def _read_sqlite(path: Path) -> Iterator[RawMessage]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db3")
        shutil.copyfile(path, copy)
        _extend_to_size(copy)
        database = sqlite3.connect(copy)
        try:
            topics = {
                i: (str(n), full_type(str(t))) for i, n, t in database.execute("SELECT id, name, type FROM topics")
            }
            definitions = _sqlite_definitions(database)
            for number, recorded, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
                if number in topics and isinstance(data, bytes):
                    topic, msgtype = topics[number]
                    yield RawMessage(topic, msgtype, int(recorded), data, definitions.get(msgtype, ""))
        except (sqlite3.Error, ValueError, TypeError):  # the first page that cannot be read
            return
        finally:
            database.close()


def _sqlite_definitions(database: sqlite3.Connection) -> dict[str, str]:
    """Return the definitions of types by name; none in recordings of before ROS 2 Iron."""
    try:
        columns = "topic_type, encoded_message_definition FROM message_definitions WHERE encoding = 'ros2msg'"
        return {full_type(str(name)): str(text) for name, text in database.execute(f"SELECT {columns}")}
    except sqlite3.Error:
        return {}


def _extend_to_size(path: Path) -> None:
    """Extend a truncated sqlite3 file to the length in its header: sqlite reads nothing of a shorter one."""
    with path.open("r+b") as file:
        header = file.read(100)
        page = int.from_bytes(header[16:18], "big")
        size = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
        if path.stat().st_size < size <= LARGEST_DATABASE_BYTES:
            file.truncate(size)
