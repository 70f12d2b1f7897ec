"""Statistics of features for meta/stats.json and episodes: min, max, mean, std, count and quantiles."""

from __future__ import annotations

import numpy as np

from jepa_ros.datasets.lerobot.layout import QUANTILES

MAX_IMAGES = 100  # images of an episode, evenly spread, that its colour statistics are computed from


def vector_statistics(values: np.ndarray) -> dict[str, list]:
    """Return each statistic (D,) of rows (N, D) or (N,), and count [N]."""
    columns = [column[np.isfinite(column)] for column in np.asarray(values, float).reshape(len(values), -1).T]
    # Positions of an object that was not seen are NaN and do not count.
    columns = [column if len(column) else np.zeros(1) for column in columns]
    found = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}
    statistics = {name: [float(reduce(column)) for column in columns] for name, reduce in found.items()}
    statistics |= {name: [float(np.quantile(column, q)) for column in columns] for name, q in QUANTILES.items()}
    return statistics | {"count": [len(values)]}


def histogram(frames: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the histogram (3, 256) of the colours of frames (N, S, S, 3) uint8, and the number of frames that it is
    from."""
    some = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MAX_IMAGES)).round().astype(int))
    chosen = np.asarray(frames[some])
    return np.stack([np.bincount(chosen[..., c].ravel(), minlength=256) for c in range(3)]), len(chosen)


def colour_statistics(counts: np.ndarray, images: int) -> dict[str, list]:
    """Return each statistic (3, 1, 1) of values 0 to 1, from a histogram (3, 256) of so many images."""
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
    return {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()} | {"count": [images]}
