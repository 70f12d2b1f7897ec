"""Any rosbag2 recording as a stream of messages: a directory with or without metadata.yaml, or one file of it; mcap and
sqlite3, split, compressed by file or by message, and whatever of it is still readable. The bag is never written to.

What is wrong is collected in `problems`, one line each, and what can be read is read.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PurePath
from typing import NamedTuple

from rosbags.rosbag2 import Reader
from rosbags.rosbag2.storage_mcap import McapReader, zstd

from jepa_ros.bags.recovery import Rescued, full_type, rescued
from jepa_ros.errors import InputError
from jepa_ros.text_files import read_yaml

KINDS = (".mcap", ".db3")
PACKED = (".zstd", ".zst")
BLOCK = 1 << 20


class Topic(NamedTuple):
    """A topic of a bag. count: its messages, as far as the bag says."""

    topic: str
    msgtype: str
    count: int


class Source:
    """One bag, open. topics: what it holds. problems: what was found wrong so far, a line each. Made by `open_source`;
    a context manager.

    connections is the same as topics, for functions that take a rosbags Reader to look at its topics."""

    def __init__(self, path: Path):
        self.path = path
        self.problems: list[str] = []
        self.unreadable = 0
        self._stack = ExitStack()
        self._by_message = False
        files = self._files()
        self._recordings = [self._recording(file) for file in files]
        counts: Counter[tuple[str, str]] = Counter()
        for recording in self._recordings:
            counts.update(recording.counts)
        self.topics = [Topic(*names, count) for names, count in sorted(counts.items())]

    @property
    def connections(self) -> list[Topic]:
        return self.topics

    @property
    def bytes(self) -> int:
        """Of its recordings."""
        return sum(r.path.stat().st_size for r in self._recordings)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its files."""
        self._stack.close()

    def listed(self) -> str:
        """The topics there are, in words."""
        return ", ".join(f"{t.topic} ({t.msgtype}, {t.count})" for t in self.topics) or "no topic at all"

    def messages(
        self, wanted: Collection[tuple[str, str]], start: int | None = None, stop: int | None = None
    ) -> Iterator[Rescued]:
        """The messages of topics (name, type), file by file, in each by the time of recording, which lies in
        [start, stop) ns where these are given."""
        wanted = set(wanted)
        for recording in self._recordings if wanted else ():
            for message in recording.messages(wanted, start, stop, self.problems):
                if not self._by_message:
                    yield message
                    continue
                try:
                    yield message._replace(data=zstd.decompress(message.data))
                except Exception:  # whatever a decompressor makes of garbage
                    self.unreadable += 1

    # -- files ---------------------------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        path = self.path
        if not path.exists():
            raise InputError(f"bag {path}: expected a rosbag2 directory or file, found nothing there")
        if path.is_file():
            if not _is_recording(path):
                raise InputError(f"bag {path}: expected a file .mcap or .db3, found another kind")
            return [path]
        files = self._listed_in_metadata() or sorted((p for p in path.iterdir() if _is_recording(p)), key=_natural)
        if not files:
            held = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "an empty directory"
            raise InputError(f"bag {path}: expected recordings (.mcap, .db3), found {held}")
        return files

    def _listed_in_metadata(self) -> list[Path]:
        """The files that metadata.yaml names and that are there; none where it does not help."""
        metadata = self.path / "metadata.yaml"
        if not metadata.exists():
            self.problems.append(
                f"bag {self.path}: expected metadata.yaml, found none: its recordings are read in order of their names"
            )
            return []
        try:
            info = read_yaml(metadata, "bag")["rosbag2_bagfile_information"]
            names = [PurePath(str(name)).name for name in info["relative_file_paths"]]
            self._by_message = str(info.get("compression_mode", "")).lower() == "message"
        except (InputError, KeyError, TypeError, AttributeError) as error:
            found = error if isinstance(error, InputError) else "one without the names of its files"
            self.problems.append(f"bag {self.path}: expected metadata.yaml of a rosbag2, found {found}")
            return []
        there = [self.path / name for name in names if (self.path / name).is_file()]
        if missing := [name for name in names if not (self.path / name).is_file()]:
            self.problems.append(f"bag {self.path}: expected the recordings {', '.join(missing)}, found them missing")
        return [file for file in there if _is_recording(file)]

    def _recording(self, file: Path) -> _Recording:
        if file.suffix in PACKED:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            file = self._unpacked(file, folder / file.stem)
        recording = _Recording(file, f"bag {self.path}: {file.name}", self.problems)
        self._stack.callback(recording.close)
        return recording

    def _unpacked(self, packed: Path, plain: Path) -> Path:
        """A compressed file, unpacked as far as it can be."""
        try:
            with packed.open("rb") as file, zstd.open(file, "rb") as unpacked, plain.open("wb") as out:
                shutil.copyfileobj(unpacked, out, BLOCK)
        except Exception as error:  # cut off, or garbage; what came out so far may hold messages
            self.problems.append(f"bag {self.path}: {packed.name}: expected a whole zstd file, found {_why(error)}")
        return plain


class _Recording:
    """One file. counts: messages by (topic, type)."""

    def __init__(self, path: Path, name: str, problems: list[str]):
        self.path, self._name, self._damaged = path, name, False
        self._reader: Reader | None = None
        try:
            reader = Reader(path)
            reader.open()
            self.counts: Counter[tuple[str, str]] = Counter()
            for c in reader.connections:
                self.counts[c.topic, full_type(c.msgtype)] += c.msgcount
            # Without chunks there is no index, and the library asks for an order that nobody promised.
            if isinstance(reader.storage, McapReader) and not reader.storage.chunks:
                reader.close()
            else:
                self._reader = reader
        except Exception as error:  # garbage may trip any part of the reader
            self.counts = Counter((m.topic, m.msgtype) for m in rescued(path))
            found = f"{_why(error)}; {sum(self.counts.values())} messages in it can be read"
            problems.append(f"{name}: expected a whole recording, found {found}")

    def close(self) -> None:
        if self._reader is not None:
            with suppress(Exception):
                self._reader.close()

    def messages(
        self, wanted: set[tuple[str, str]], start: int | None, stop: int | None, problems: list[str]
    ) -> Iterator[Rescued]:
        last, count = -1, 0
        if self._reader is not None:
            connections = [c for c in self._reader.connections if (c.topic, full_type(c.msgtype)) in wanted]
            if not connections:
                return
            try:
                for connection, recorded, data in self._reader.messages(connections, start, stop):
                    last, count = recorded, count + 1
                    yield Rescued(connection.topic, full_type(connection.msgtype), recorded, data)
                return
            except Exception as error:  # garbage may trip any part of the reader
                if not self._damaged:
                    found = f"damage after {count} of them: {_why(error)}"
                    problems.append(f"{self._name}: expected whole messages, found {found}")
                self._damaged = True
        for message in rescued(self.path):
            inside = (start is None or message.recorded >= start) and (stop is None or message.recorded < stop)
            if inside and message.recorded > last and (message.topic, message.msgtype) in wanted:
                yield message


def open_source(path: Path) -> Source:
    """The bag at `path`. Raises InputError where there is none, or no recording in it."""
    return Source(path)


def _is_recording(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix in PACKED else path
    return name.suffix in KINDS and path.is_file()


def _natural(path: Path) -> list:
    """So that x_10 comes after x_9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
