"""meta/stats.json and the statistics of episodes: min, max, mean, std, count and quantiles of every feature."""

from __future__ import annotations

import numpy as np

from jepa_ros.datasets.lerobot.layout import QUANTILES

MOST_PICTURES = 100
"""Of an episode, evenly spread, that its colours' statistics are made of."""


def vector_statistics(values: np.ndarray) -> dict[str, list]:
    """Of rows (N, D) or (N,): each statistic (D,), count [N]."""
    columns = [column[np.isfinite(column)] for column in np.asarray(values, float).reshape(len(values), -1).T]
    # An object that is not seen has no position: its statistics are those of where it is.
    columns = [column if len(column) else np.zeros(1) for column in columns]
    found = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}
    statistics = {name: [float(reduce(column)) for column in columns] for name, reduce in found.items()}
    statistics |= {name: [float(np.quantile(column, q)) for column in columns] for name, q in QUANTILES.items()}
    return statistics | {"count": [len(values)]}


def histogram(frames: np.ndarray) -> tuple[np.ndarray, int]:
    """Of frames (N, S, S, 3) uint8: how often each value occurs by colour (3, 256), in the pictures looked at, and how
    many these are."""
    some = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST_PICTURES)).round().astype(int))
    looked = np.asarray(frames[some])
    return np.stack([np.bincount(looked[..., c].ravel(), minlength=256) for c in range(3)]), len(looked)


def colour_statistics(counts: np.ndarray, pictures: int) -> dict[str, list]:
    """Each statistic (3, 1, 1) of values 0 to 1, from histograms (3, 256)."""
    values, total = np.arange(256) / 255.0, counts.sum(1)
    mean = counts @ values / total
    there = counts > 0
    found = {
        "min": values[there.argmax(1)],
        "max": values[255 - there[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0.0)),
    }
    below = np.cumsum(counts, axis=1) / total[:, None]
    found |= {name: values[(below >= q - 1e-12).argmax(1)] for name, q in QUANTILES.items()}
    return {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()} | {"count": [pictures]}
