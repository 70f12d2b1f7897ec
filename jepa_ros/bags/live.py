"""Writing a rosbag2 recording (mcap) of a running graph, which stays readable however the writing ends.

At most one second of data is lost if the process is killed: the file then consists of whole chunks and only lacks the
index at its end, which our reader does not need (for `ros2 bag`, `ros2 bag reindex` rebuilds it).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2.metadata import dump_qos_v9

from jepa_ros.bags.typestore import typestore
from jepa_ros.bags.writer import check_disk, qos_profile
from jepa_ros.errors import InputError
from jepa_ros.text_files import write_atomically

FLUSH_PERIOD_S = 1.0
CHUNK_BYTES = 4 << 20
DISK_CHECK_PERIOD_S = 0.5


class LiveBag:
    """A bag at `path`, a directory that must not exist; a new file is started after `split_bytes` of messages.

    about: texts for metadata.yaml and every file. attachments: files by name, stored in every file. For one thread
    only. Raises InputError where `path` exists or cannot be created.
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
        self._start_file()

    @property
    def messages(self) -> int:
        """Number of messages written."""
        return self._counts.total()

    @staticmethod
    def knows(kind: str) -> bool:
        """Check whether this type (package/msg/Name) is known: one of the distribution, or of jepa_msgs."""
        return kind in typestore().types

    def add_topic(self, topic: str, kind: str, latched: bool) -> None:
        """Add a topic of a known type (package/msg/Name). latched: late subscribers receive the last message."""
        self._topics[topic] = (kind, dump_qos_v9([qos_profile(latched)]))
        self._register(topic)

    def write(self, topic: str, data: bytes, received: int, sent: int) -> None:
        """Write a serialised message of a topic that was added. received, sent: ns. Raises DiskFull."""
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
            self._finish_file()
            self._start_file()
        else:
            self.flush_when_due()

    def flush_when_due(self) -> None:
        """Flush buffered messages to the operating system, once per FLUSH_PERIOD_S."""
        if time.monotonic() - self._flushed >= FLUSH_PERIOD_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write the index and metadata.yaml; an empty last file is removed."""
        self._finish_file()

    def _start_file(self) -> None:
        name = f"{self.path.name}_{len(self._files)}.mcap"
        self._files.append({"path": name, "message_count": 0, "first": 2**63, "last": 0})
        self._stream = (self.path / name).open("xb")
        self._writer = Writer(self._stream, chunk_size=CHUNK_BYTES, compression=CompressionType.LZ4)
        self._writer.start(profile="ros2", library="jepa_ros")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._size, self._flushed, self._disk_checked = 0, time.monotonic(), 0.0
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

    def _finish_file(self) -> None:
        self._writer.finish()
        self._stream.close()
        if not self._files[-1]["message_count"] and len(self._files) > 1:
            (self.path / self._files.pop()["path"]).unlink()
        self._write_metadata()

    def _write_metadata(self) -> None:
        """Write metadata.yaml (rosbag2 version 9), at the start and at the end of each file."""
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
        if now - self._disk_checked >= DISK_CHECK_PERIOD_S:
            self._disk_checked = now
            check_disk(self.path)
