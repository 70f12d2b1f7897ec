"""The result as a bag: latents, surprise and plans beside the inputs that they belong to, with the stamps kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from jepa_ros.bags.typestore import COMPRESSED_IMAGE, IMAGE, typestore
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.pictures import Picture
from jepa_ros.evaluation.bag.reading.topics import Name
from jepa_ros.planning.receding_horizon import PlanStep
from jepa_ros.world_model.surprise import SurpriseReading

LATENT, SURPRISE, PLAN = "/latent", "/surprise", "/plan"
TYPES = {LATENT: "jepa_msgs/msg/LatentState", SURPRISE: "jepa_msgs/msg/Surprise", PLAN: "jepa_msgs/msg/Plan"}


class ResultBag:
    """Writes one mcap file, which is at `path` once `finish` has been called and not before. Compressed pictures are
    copied as they are; raw ones become JPEG of at most 320 px on `<topic>/compressed`, as they would fill the disk.

    Times are ns. A context manager: left with an error it leaves nothing.
    """

    def __init__(self, path: Path, inputs: list[Name], model_id: str):
        self._path, self._model_id = path, model_id
        self._folder = path.with_name(f".{path.name}.{os.getpid()}")
        self._types = typestore()
        self._inputs = [name for name in inputs if name[0] not in TYPES]
        self._plans = 0

    def __enter__(self) -> ResultBag:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        # The name of the bag is in its metadata, which are to be the same each time.
        self._writer = Writer(self._folder / "result", version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections = {}
        for topic, kind in [*map(_written, self._inputs), *TYPES.items()]:
            self._connections[topic, kind] = self._writer.add_connection(topic, kind, typestore=self._types)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def finish(self) -> None:
        """The file is complete."""
        writer, self._writer = self._writer, None
        writer.close()
        os.replace(self._folder / "result" / "result.mcap", self._path)

    def copy(self, name: Name, recorded: int, data: bytes) -> None:
        """A message as it is; pictures that are raw come by `picture`."""
        connection = self._connections.get(name)
        if connection is not None:
            self._write(connection, recorded, data)

    def picture(self, name: Name, made: Picture) -> None:
        """A raw picture's JPEG."""
        if made.jpeg is not None:
            data = np.frombuffer(made.jpeg, np.uint8)
            header = self._header(made.stamp, made.frame_id)
            self._message(_written(name), made.recorded, header=header, format="jpeg", data=data)

    def latent(self, stamp: int, recorded: int, frame_id: str, values: np.ndarray) -> None:
        """Of a frame; values (*L) float32. encode_ms is 0: a time would differ from run to run."""
        self._message(
            (LATENT, TYPES[LATENT]),
            recorded,
            header=self._header(stamp, frame_id),
            model_id=self._model_id,
            shape=np.array(values.shape, np.uint32),
            data=values.ravel(),
            norm=float(np.linalg.norm(values)),
            encode_ms=0.0,
        )

    def surprise(self, stamp: int, recorded: int, frame_id: str, reading: SurpriseReading) -> None:
        """Of the frame that was predicted."""
        fields = {k: getattr(reading, k) for k in ("error", "quantile", "threshold", "surprised")}
        self._message((SURPRISE, TYPES[SURPRISE]), recorded, header=self._header(stamp, frame_id), **fields)

    def plan(self, step: PlanStep, zero: int, recorded: int, goal: int, base_frame: str) -> None:
        """A plan whose times are s after `zero`, made towards the frame stamped `goal`."""
        make, self._plans = self._make, self._plans + 1
        trajectory = step.trajectory
        columns = zip(trajectory.positions, trajectory.velocities, trajectory.accelerations, strict=True)
        points = [
            make(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=q,
                velocities=qd,
                accelerations=qdd,
                effort=np.zeros(0),
                time_from_start=make("builtin_interfaces/msg/Duration", **_parts(round(float(t) * 1e9))),
            )
            for t, (q, qd, qdd) in zip(trajectory.times, columns, strict=True)
        ]
        self._message(
            (PLAN, TYPES[PLAN]),
            recorded,
            header=self._header(_ns(zero, step.start), base_frame),
            plan_id=self._plans,
            goal_id=f"{goal:032x}",
            model_id=self._model_id,
            source_stamp=self._time(_ns(zero, step.source_stamp)),
            valid_until=self._time(_ns(zero, step.valid_until)),
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

    def _message(self, name: Name, recorded: int, **fields: Any) -> None:
        data = self._types.serialize_cdr(self._make(name[1], **fields), name[1])
        self._write(self._connections[name], recorded, data)

    def _write(self, connection: Any, recorded: int, data: Any) -> None:
        try:
            self._writer.write(connection, recorded, data)
        except OSError as error:
            raise InputError(f"out {self._path}: expected room for the result bag, found {error}") from None

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._types.types[kind](**fields)

    def _time(self, ns: int) -> Any:
        return self._make("builtin_interfaces/msg/Time", **_parts(ns))

    def _header(self, ns: int, frame_id: str) -> Any:
        return self._make("std_msgs/msg/Header", stamp=self._time(ns), frame_id=frame_id)


def _written(name: Name) -> Name:
    """The topic that an input is written on."""
    topic, kind = name
    return (f"{topic}/compressed", COMPRESSED_IMAGE) if kind == IMAGE else name


def _ns(zero: int, seconds: float) -> int:
    return zero + round(seconds * 1e9)


def _parts(ns: int) -> dict[str, int]:
    return {"sec": ns // 10**9, "nanosec": ns % 10**9}
