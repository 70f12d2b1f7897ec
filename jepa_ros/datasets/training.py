"""Episodes of a dataset as training wants them; their frames stay on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jepa_ros.bags.positions import TOOL, PlacedEpisode
from jepa_ros.datasets.mapping import PLANAR
from jepa_ros.datasets.store import Dataset, IndexedEpisode
from jepa_ros.errors import InputError


def read_training_episodes(
    data: Dataset,
    fields: tuple[Sequence[str], Sequence[str]],
    period: float,
    size: int,
    cameras: Sequence[str],
    objects: Sequence[str],
) -> list[PlacedEpisode]:
    """The episodes, in the order of the index. fields, period, size, cameras: what a training asks for; objects: names.

    Raises InputError where the dataset was built otherwise: it says how to build one that fits.
    """
    x = data.layout
    views = tuple(topic.strip("/").removesuffix("/compressed") for topic in cameras)
    found = tuple(topic.strip("/") for topic in x.views)
    for what, wanted, there in (
        ("joints", tuple(fields[0]), x.joints),
        ("gripper joints", tuple(fields[1]), x.gripper),
        ("size", size, x.size),
        ("actions", PLANAR, x.action_space),
        ("numbers of an action", 2, len(x.action_names)),
        ("views", views or (found if len(found) == 1 else "one, or the names of cameras"), found),
        ("positions", sorted({TOOL, *objects}), sorted({TOOL, *objects} & set(x.positions))),
    ):
        if wanted != there:
            raise InputError(
                f"dataset {data.path}: expected the {what} {wanted}, found {there}; build another for this"
            )
    if abs(x.rate * period - 1) > 1e-9:
        raise InputError(f"dataset {data.path}: expected a rate of {1 / period:g} Hz, found {x.rate:g} Hz")
    return [_episode(data, entry, (TOOL, *objects)) for entry in data.index.episodes]


def _episode(data: Dataset, entry: IndexedEpisode, names: Sequence[str]) -> PlacedEpisode:
    frames = data.rows(entry, "frames")
    if frames.shape[1] == 1:
        frames = frames[:, 0]
    positions = np.array(data.rows(entry, "positions"))
    named = {name: positions[:, data.layout.positions.index(name)] for name in names}
    return PlacedEpisode(
        frames,
        np.array(data.rows(entry, "states")),
        np.array(data.rows(entry, "actions")[:-1]),
        named[TOOL][:, :2],
        entry.split,
        named,
    )
