"""The reference image of the training camera in a checkpoint, which `jepa_ros doctor` overlays on a live image."""

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
    """Return the frame (size, size, 3) uint8 rgb whose joints are closest to `home` (J,) rad, or the first frame if the
    episodes have no joints. Of several cameras it is the first, which the model's `camera` describes."""
    states = np.concatenate([e.states for e in data.episodes])
    row = int(np.square(states[:, : len(home)] - home).sum(axis=1).argmin()) if states.shape[1] else 0
    frame = data.frames[row]
    return frame if frame.ndim == 3 else frame[0]


def write_reference(directory: Path, rgb: np.ndarray) -> None:
    """Write the image (H, W, 3) uint8 RGB as reference.png of a checkpoint."""
    path = directory / REFERENCES[0]
    data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    write_atomically(path, data.tobytes())


def copy_references(source: Path, target: Path) -> None:
    """Copy the reference images of one checkpoint to another with the same cameras."""
    for name in REFERENCES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
