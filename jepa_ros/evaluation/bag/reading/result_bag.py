"""The result bag: latents, surprise and plans beside the inputs that they were computed from, with their stamps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from jepa_ros.bags.typestore import COMPRESSED_IMAGE, IMAGE, typestore
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.images import CameraImage
from jepa_ros.evaluation.bag.reading.recording import TopicKey
from jepa_ros.planning.receding_horizon import PlanStep
from jepa_ros.world_model.surprise import SurpriseReading

LATENT, SURPRISE, PLAN = "/latent", "/surprise", "/plan"
TYPES = {LATENT: "jepa_msgs/msg/LatentState", SURPRISE: "jepa_msgs/msg/Surprise", PLAN: "jepa_msgs/msg/Plan"}


class ResultBag:
    """Writes one mcap file, which appears at `path` when `finish` is called. Compressed images are copied; raw images,
    which would fill the disk, become JPEG of at most 320 px on `<topic>/compressed`.

    Times are ns. A context manager; after an error it leaves no file.
    """

    def __init__(self, path: Path, inputs: list[TopicKey], model_id: str):
        self._path, self._model_id = path, model_id
        self._folder = path.with_name(f".{path.name}.{os.getpid()}")
        self._types = typestore()
        self._inputs = [name for name in inputs if name[0] not in TYPES]
        self._plans = 0

    def __enter__(self) -> ResultBag:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        # The metadata contains the name of the bag; it must be the same in each run.
        self._writer = Writer(self._folder / "result", version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections = {}
        for topic, kind in [*map(_output_topic, self._inputs), *TYPES.items()]:
            self._connections[topic, kind] = self._writer.add_connection(topic, kind, typestore=self._types)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def finish(self) -> None:
        """Close the file and move it to `path`."""
        writer, self._writer = self._writer, None
        writer.close()
        os.replace(self._folder / "result" / "result.mcap", self._path)

    def copy(self, name: TopicKey, recorded: int, data: bytes) -> None:
        """Copy a message; raw images are written by `write_image`."""
        connection = self._connections.get(name)
        if connection is not None:
            self._write(connection, recorded, data)

    def write_image(self, name: TopicKey, image: CameraImage) -> None:
        """Write the JPEG of a raw image."""
        if image.jpeg is not None:
            data = np.frombuffer(image.jpeg, np.uint8)
            header = self._header(image.stamp, image.frame_id)
            self._write_message(_output_topic(name), image.recorded, header=header, format="jpeg", data=data)

    def write_latent(self, stamp: int, recorded: int, frame_id: str, values: np.ndarray) -> None:
        """Write a frame's latent (*L) float32. encode_ms is 0, since a time would differ from run to run."""
        self._write_message(
            (LATENT, TYPES[LATENT]),
            recorded,
            header=self._header(stamp, frame_id),
            model_id=self._model_id,
            shape=np.array(values.shape, np.uint32),
            data=values.ravel(),
            norm=float(np.linalg.norm(values)),
            encode_ms=0.0,
        )

    def write_surprise(self, stamp: int, recorded: int, frame_id: str, reading: SurpriseReading) -> None:
        """Write the surprise about a frame that was predicted."""
        fields = {k: getattr(reading, k) for k in ("error", "quantile", "threshold", "surprised")}
        self._write_message((SURPRISE, TYPES[SURPRISE]), recorded, header=self._header(stamp, frame_id), **fields)

    def write_plan(self, step: PlanStep, zero: int, recorded: int, goal: int, base_frame: str) -> None:
        """Write a plan, whose times are s after `zero`, to the goal frame with stamp `goal`."""
        make, self._plans = self._make, self._plans + 1
        start, source, until = (zero + round(t * 1e9) for t in (step.start, step.source_stamp, step.valid_until))
        trajectory = step.trajectory
        columns = zip(trajectory.positions, trajectory.velocities, trajectory.accelerations, strict=True)
        points = [
            make(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=q,
                velocities=qd,
                accelerations=qdd,
                effort=np.zeros(0),
                time_from_start=self._time(round(float(t) * 1e9), "Duration"),
            )
            for t, (q, qd, qdd) in zip(trajectory.times, columns, strict=True)
        ]
        self._write_message(
            (PLAN, TYPES[PLAN]),
            recorded,
            header=self._header(start, base_frame),
            plan_id=self._plans,
            goal_id=f"{goal:032x}",
            model_id=self._model_id,
            source_stamp=self._time(source),
            valid_until=self._time(until),
            trajectory=make(
                "trajectory_msgs/msg/JointTrajectory",
                header=self._header(0, ""),
                joint_names=list(trajectory.names),
                points=points,
            ),
            action_blocks=step.motion.actions.astype(np.float32).ravel(),
            cost=step.motion.cost,
            predicted_distance=step.motion.predicted_distance,
        )

    def _write_message(self, name: TopicKey, recorded: int, **fields: Any) -> None:
        data = self._types.serialize_cdr(self._make(name[1], **fields), name[1])
        self._write(self._connections[name], recorded, data)

    def _write(self, connection: Any, recorded: int, data: Any) -> None:
        try:
            self._writer.write(connection, recorded, data)
        except OSError as error:
            raise InputError(
                f"--out {self._path}: cannot write the result bag ({error}); free disk space or use --no-result"
            ) from None

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._types.types[kind](**fields)

    def _time(self, ns: int, kind: str = "Time") -> Any:
        return self._make(f"builtin_interfaces/msg/{kind}", sec=ns // 10**9, nanosec=ns % 10**9)

    def _header(self, ns: int, frame_id: str) -> Any:
        return self._make("std_msgs/msg/Header", stamp=self._time(ns), frame_id=frame_id)


def _output_topic(name: TopicKey) -> TopicKey:
    """Return the topic that an input is written to."""
    topic, kind = name
    return (f"{topic}/compressed", COMPRESSED_IMAGE) if kind == IMAGE else name
