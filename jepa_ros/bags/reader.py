"""Opening and reading bags: rosbag2 directories with or without metadata.yaml, or single files; mcap or sqlite3, split,
compressed by file or by message. Bags are never changed.

`open_bag` reads what is readable and lists every defect in `Bag.problems`. With `strict=True` the first defect raises
InputError, for training, which must not silently learn from a part of the data.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.storage_mcap import McapReader, zstd

from jepa_ros.bags.recovery import RawMessage, describe_readable, recover_messages
from jepa_ros.bags.typestore import STRING, full_type
from jepa_ros.errors import InputError
from jepa_ros.text_files import read_yaml

RECORDING_SUFFIXES = (".mcap", ".db3")
COMPRESSED_SUFFIXES = (".zstd", ".zst")
COPY_BLOCK_BYTES = 1 << 20


class Topic(NamedTuple):
    """A topic of a bag. count: number of its messages, as the bag's index states it."""

    topic: str
    msgtype: str
    count: int


class Bag(AbstractContextManager):
    """An open bag, made by `open_bag`; a context manager.

    topics: its topics, sorted by name. problems: the defects found so far, one line each; they grow while messages are
    read. undecompressed: number of messages that could not be decompressed.
    """

    def __init__(self, path: Path, strict: bool):
        self.path, self.strict = path, strict
        self.problems: list[str] = []
        self.undecompressed = 0
        self._stack = ExitStack()
        self._compressed_messages = False
        try:
            self._recordings = [self._open_recording(file) for file in self._find_files()]
        except BaseException:
            self.close()
            raise
        counts: Counter[tuple[str, str]] = Counter()
        for recording in self._recordings:
            counts.update(recording.counts)
        self.topics = [Topic(*name, count) for name, count in sorted(counts.items())]

    @property
    def bytes(self) -> int:
        """Size of its recordings in bytes."""
        return sum(r.path.stat().st_size for r in self._recordings)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        self._stack.close()

    def list_topics(self) -> str:
        """Return the topics with type and count, as a part of a sentence."""
        return ", ".join(f"{t.topic} ({t.msgtype}, {t.count})" for t in self.topics) or "no topic at all"

    def expect_types(self, needed: Mapping[str, Collection[str]]) -> None:
        """Raise InputError where a topic is missing. needed: message types of which one must be there, by name."""
        there = {t.msgtype for t in self.topics}
        if missing := [name for name, types in needed.items() if not there & set(types)]:
            raise InputError(f"bag {self.path}: expected the topics {', '.join(missing)}, found {self.list_topics()}")

    def messages(
        self, wanted: Iterable[tuple[str, str]], start: int | None = None, stop: int | None = None
    ) -> Iterator[RawMessage]:
        """Yield the messages of the topics (name, type): file by file, in each by time of recording.

        start, stop: only messages recorded in [start, stop) ns. Raises InputError at a defect where the bag is strict.
        """
        topics = {(topic, msgtype) for topic, msgtype, *_ in wanted}
        for recording in self._recordings if topics else ():
            for message in recording.messages(topics, start, stop):
                if not self._compressed_messages:
                    yield message
                    continue
                try:
                    data = zstd.decompress(message.data)
                except Exception as error:  # a decompressor may raise anything on garbage
                    self.undecompressed += 1
                    if self.strict:
                        self.report(f"bag {self.path}: {message.topic}: expected zstd messages, found {_reason(error)}")
                    continue
                yield message._replace(data=data)

    def decoded(self, wanted: Iterable[tuple[str, str]]) -> Iterator[tuple[RawMessage, Any]]:
        """Yield (raw message, message object) as `messages`. Raises InputError at the first malformed message."""
        for count, raw in enumerate(self.messages(wanted)):
            try:
                message = raw.deserialise()
            except Exception as error:  # garbage may raise anything in the deserialiser
                damage = f"expected whole messages, found damage after {count} of them: {error!r}"
                raise InputError(f"bag {self.path}: {damage}; {describe_readable(self.path)}") from None
            yield raw, message

    def report(self, problem: str, recovered: str = "") -> None:
        """Add a defect to `problems`, or raise InputError if strict. recovered: what is still readable of the file."""
        if self.strict:
            raise InputError(f"{problem}; {describe_readable(self.path)}")
        self.problems.append(problem + recovered)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _find_files(self) -> list[Path]:
        check_recording(self.path)
        if self.path.is_file():
            return [self.path]
        there = [p for p in self.path.iterdir() if _is_recording(p)]
        return self._files_in_metadata() or sorted(  # in natural order: x_10 comes after x_9
            there, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)]
        )

    def _files_in_metadata(self) -> list[Path]:
        """Return the files that metadata.yaml names and that exist; none where metadata.yaml is unusable."""
        metadata = self.path / "metadata.yaml"
        if not metadata.exists():
            self.report(f"bag {self.path}: expected metadata.yaml, found none", ": its recordings are read by name")
            return []
        try:
            info = read_yaml(metadata, "bag")["rosbag2_bagfile_information"]
            names = [PurePath(str(name)).name for name in info["relative_file_paths"]]
            self._compressed_messages = str(info.get("compression_mode", "")).lower() == "message"
        except (InputError, KeyError, TypeError, AttributeError) as error:
            found = error if isinstance(error, InputError) else "one without the names of its files"
            self.report(f"bag {self.path}: expected metadata.yaml of a rosbag2, found {found}")
            return []
        if missing := [name for name in names if not (self.path / name).is_file()]:
            self.report(f"bag {self.path}: expected the recordings {', '.join(missing)}, found them missing")
        return [file for name in names if _is_recording(file := self.path / name)]

    def _open_recording(self, file: Path) -> _Recording:
        recording = _Recording(self._decompress(file) if file.suffix in COMPRESSED_SUFFIXES else file, self)
        self._stack.callback(recording.close)
        return recording

    def _decompress(self, packed: Path) -> Path:
        """Decompress a file, as far as it is readable, into a temporary one."""
        plain = Path(self._stack.enter_context(tempfile.TemporaryDirectory()), packed.stem)
        try:
            with packed.open("rb") as file, zstd.open(file, "rb") as unpacked, plain.open("wb") as out:
                shutil.copyfileobj(unpacked, out, COPY_BLOCK_BYTES)
        except Exception as error:  # truncated or garbage; the part before it may hold messages
            self.report(f"bag {self.path}: {packed.name}: expected a whole zstd file, found {_reason(error)}")
        return plain


class _Recording:
    """One file of a bag. counts: messages by (topic, type)."""

    def __init__(self, path: Path, bag: Bag):
        self.path, self._bag, self._damaged = path, bag, False
        self._name = f"bag {bag.path}: {path.name}"
        self._reader: Reader | None = None
        try:
            reader = Reader(path)
            reader.open()
            self.counts: Counter[tuple[str, str]] = Counter()
            for c in reader.connections:
                self.counts[c.topic, full_type(c.msgtype)] += c.msgcount
            # An mcap file without chunks has no index, and the library expects an order that the format does not
            # demand.
            if isinstance(reader.storage, McapReader) and not reader.storage.chunks:
                reader.close()
            else:
                self._reader = reader
        except Exception as error:  # garbage may raise anything in the reader
            self.counts = Counter((m.topic, m.msgtype) for m in recover_messages(path))
            recovered = f"; {self.counts.total()} messages in it can be read"
            bag.report(f"{self._name}: expected a whole recording, found {_reason(error)}", recovered)

    def close(self) -> None:
        if self._reader is not None:
            with suppress(Exception):
                self._reader.close()

    def messages(self, wanted: set[tuple[str, str]], start: int | None, stop: int | None) -> Iterator[RawMessage]:
        last, count = -1, 0
        if self._reader is not None:
            connections = [c for c in self._reader.connections if (c.topic, full_type(c.msgtype)) in wanted]
            if not connections:
                return
            try:
                for c, recorded, data in self._reader.messages(connections, start, stop):
                    last, count = recorded, count + 1
                    definition = c.msgdef.data if c.msgdef.format == MessageDefinitionFormat.MSG else ""
                    yield RawMessage(c.topic, full_type(c.msgtype), recorded, data, definition)
                return
            except Exception as error:  # garbage may raise anything in the reader
                if not self._damaged:
                    found = f"damage after {count} of them: {_reason(error)}"
                    self._bag.report(f"{self._name}: expected whole messages, found {found}")
                self._damaged = True
        for message in recover_messages(self.path):
            inside = (start is None or message.recorded >= start) and (stop is None or message.recorded < stop)
            if inside and message.recorded > last and (message.topic, message.msgtype) in wanted:
                yield message


def open_bag(path: Path, strict: bool = False) -> Bag:
    """Open the bag at `path`. strict: raise InputError at the first defect instead of listing it.

    Raises InputError where there is no bag, or no recording in it.
    """
    return Bag(Path(path), strict)


def read_robot_description(path: Path) -> str | None:
    """Return the URDF in a bag, or None. Raises InputError where the bag is damaged."""
    with open_bag(path, strict=True) as bag:
        topics = [t for t in bag.topics if t.msgtype == STRING and t.topic.endswith("robot_description")]
        for _, message in bag.decoded(t[:2] for t in topics):
            return message.data
    return None


def check_recording(path: Path) -> None:
    """Raise InputError if `path` is not a recording, nor a directory with one."""
    if not path.exists():
        raise InputError(f"bag {path}: expected a rosbag2 directory or file, found nothing there")
    if path.is_file() and not _is_recording(path):
        raise InputError(f"bag {path}: expected a file .mcap or .db3, found another kind")
    if path.is_dir() and not any(map(_is_recording, path.iterdir())):
        held = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "an empty directory"
        raise InputError(f"bag {path}: expected recordings (.mcap, .db3), found {held}")


def _is_recording(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix in COMPRESSED_SUFFIXES else path
    return name.suffix in RECORDING_SUFFIXES and path.is_file()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
