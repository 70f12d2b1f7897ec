"""The picture of the training camera that lies beside a checkpoint, for `jepa_ros doctor` to lay over a live one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.text_files import write_atomically
from jepa_ros.world_model.config import REFERENCES


def reference_frame(data: EpisodeSet, home: Sequence[float]) -> np.ndarray:
    """The frame (size, size, 3) uint8 rgb in which the joints are nearest to `home` (J,) rad; the first one where the
    episodes do not tell the joints. Of several cameras the first one's, which the model's `camera` describes."""
    states = np.concatenate([e.states for e in data.episodes])
    row = int(np.square(states[:, : len(home)] - home).sum(axis=1).argmin()) if states.shape[1] else 0
    frame = data.frames[row]
    return frame if frame.ndim == 3 else frame[0]


def write_reference(directory: Path, rgb: np.ndarray) -> None:
    """The picture (H, W, 3) uint8 rgb as a checkpoint's reference.png, whole or not at all."""
    path = directory / REFERENCES[0]
    data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    write_atomically(path, data.tobytes())


def copy_references(source: Path, target: Path) -> None:
    """The pictures of one checkpoint beside another, which sees the same."""
    for name in REFERENCES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
