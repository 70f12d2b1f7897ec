"""A rosbag2 recording (mcap) that is written while things happen, and can be read however its writing ends.

What was written until a second ago lies in whole chunks in the file: where the process is killed only the index at its
end is missing, and readers do without it (`ros2 bag` rebuilds it with `ros2 bag reindex`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2.metadata import dump_qos_v9

from jepa_ros.bags.typestore import typestore
from jepa_ros.bags.writer import RESERVE, DiskFull, qos
from jepa_ros.errors import InputError
from jepa_ros.text_files import write_atomically

FLUSH = 1.0
"""s, at most, that messages wait in memory."""
CHUNK = 4 << 20
FULL_EVERY = 0.5
"""s between two looks at how much room the disk has."""


class LiveBag:
    """A bag at `path`, a directory that must not exist; a new file is begun after `split_bytes` of messages.

    about: facts in words, kept in metadata.yaml and in every file. attachments: files by name, kept in every file.
    Not for several threads. Raises InputError where there is something at `path` or nothing can be made there.
    """

    def __init__(
        self, path: Path, split_bytes: float, about: Mapping[str, str], attachments: Mapping[str, bytes] | None = None
    ):
        self.path, self._split_bytes = Path(path), split_bytes
        self._about, self._attachments = dict(about), dict(attachments or {})
        self._topics: dict[str, tuple[str, list]] = {}  # type and QoS, as rosbag2 writes it, by name
        self._counts: Counter[str] = Counter()
        self._files: list[dict] = []
        self.bytes = 0
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"bag {path}: expected a new directory, found {error.strerror.lower()}") from None
        self._begin()

    @property
    def messages(self) -> int:
        """How many were written."""
        return self._counts.total()

    @staticmethod
    def knows(kind: str) -> bool:
        """Whether the definition of this type (package/msg/Name) is known: one of the distribution, or of jepa_msgs."""
        return kind in typestore().types

    def add_topic(self, topic: str, kind: str, latched: bool) -> None:
        """A topic with messages of this type (package/msg/Name), one that is known. latched: whoever comes late still
        hears the last one."""
        self._topics[topic] = (kind, dump_qos_v9([qos(latched)]))
        self._register(topic)

    def write(self, topic: str, data: bytes, received: int, sent: int) -> None:
        """A serialised message of a topic that was added; times in ns. Raises DiskFull, and then no more is written."""
        self._check_disk()
        self._writer.add_message(self._channels[topic], received, data, sent)
        self._counts[topic] += 1
        file = self._files[-1]
        file["message_count"] += 1
        file["first"] = min(file["first"], received)
        file["last"] = max(file["last"], received)
        self._size += len(data)
        self.bytes += len(data)
        if self._size > self._split_bytes:
            self._finish()
            self._begin()
        else:
            self.flush_when_due()

    def flush_when_due(self) -> None:
        """Give what waits in memory to the system, once a second."""
        if time.monotonic() - self._flushed >= FLUSH:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write the index and what metadata.yaml tells; a file without a message is left out."""
        self._finish()

    def _begin(self) -> None:
        name = f"{self.path.name}_{len(self._files)}.mcap"
        self._files.append({"path": name, "message_count": 0, "first": 2**63, "last": 0})
        self._stream = (self.path / name).open("xb")
        self._writer = Writer(self._stream, chunk_size=CHUNK, compression=CompressionType.LZ4)
        self._writer.start(profile="ros2", library="jepa_ros")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._size, self._flushed, self._looked = 0, time.monotonic(), 0.0
        now = time.time_ns()
        for attached, data in self._attachments.items():
            kind = "application/json" if attached.endswith(".json") else "text/plain"
            self._writer.add_attachment(now, now, attached, kind, data)
        self._writer.add_metadata("jepa_ros", self._about)
        for topic in self._topics:
            self._register(topic)
        self._write_metadata()

    def _register(self, topic: str) -> None:
        kind, profiles = self._topics[topic]
        if kind not in self._schemas:
            text = typestore().generate_msgdef(kind, ros_version=2)[0]
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        self._channels[topic] = self._writer.register_channel(
            topic, "cdr", self._schemas[kind], {"offered_qos_profiles": yaml.safe_dump(profiles)}
        )

    def _finish(self) -> None:
        self._writer.finish()
        self._stream.close()
        if not self._files[-1]["message_count"] and len(self._files) > 1:
            (self.path / self._files.pop()["path"]).unlink()
        self._write_metadata()

    def _write_metadata(self) -> None:
        """rosbag2's format, version 9. Written when a file is begun and when one is whole."""
        held = [f for f in self._files if f["message_count"]]
        begin, end = min((f["first"] for f in held), default=0), max((f["last"] for f in held), default=0)
        information = {
            "version": 9,
            "storage_identifier": "mcap",
            "duration": {"nanoseconds": end - begin},
            "starting_time": {"nanoseconds_since_epoch": begin},
            "message_count": self.messages,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic,
                        "type": kind,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": profiles,
                        "type_description_hash": typestore().hash_rihs01(kind),
                    },
                    "message_count": self._counts[topic],
                }
                for topic, (kind, profiles) in self._topics.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [f["path"] for f in self._files],
            "files": [
                {
                    "path": f["path"],
                    "starting_time": {"nanoseconds_since_epoch": f["first"] if f["message_count"] else 0},
                    "duration": {"nanoseconds": max(f["last"] - f["first"], 0)},
                    "message_count": f["message_count"],
                }
                for f in self._files
            ],
            "custom_data": self._about,
            "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
        }
        text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
        write_atomically(self.path / "metadata.yaml", text)

    def _check_disk(self) -> None:
        now = time.monotonic()
        if now - self._looked >= FULL_EVERY:
            self._looked = now
            if (free := shutil.disk_usage(self.path).free) < RESERVE:
                found = f"{free / 1e6:.1f} MB"
                raise DiskFull(f"bag {self.path}: expected {RESERVE / 1e6:g} MB of free disk, found {found}")
