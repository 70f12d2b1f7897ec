"""Latents of a model on recorded episodes, and their metrics.

Shapes: N frames, M of them kept whole, D numbers of a latent (patch tokens averaged), L the latent's own shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_ros.bags.reader import read_robot_description
from jepa_ros.datasets.episodes import Episode
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import describe_collapse, encode_frames, fit_and_probe, measure_latents
from jepa_ros.planning.goal import latent_distance_pairs
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import PredictiveModel

BATCH = 32
KEPT_BYTES = 512 * 2**20  # of whole latents; patch tokens of every frame would not fit into memory
SAME_POSITION_M = 0.01  # tool distance below which two frames count as of the same position
MAX_QUERIES = 300  # frames whose nearest frames are searched


@dataclass(frozen=True)
class LatentSpace:
    """Latents of episodes, with frames and tool positions.

    pooled: (N, D) float32. whole: (M, *L), of the rows `kept` (M,), ascending. frames: (N, size, size, 3) uint8, with
    several cameras (N, cameras, size, size, 3). tool: (N, 2) m. episode: (N,) ascending. time: (N,) s in the episode.
    test: (N,) bool; the other rows may train a probe.
    """

    pooled: torch.Tensor
    whole: torch.Tensor
    kept: np.ndarray
    frames: np.ndarray
    tool: np.ndarray
    episode: np.ndarray
    time: np.ndarray
    test: np.ndarray

    def image(self, row: int) -> np.ndarray:
        """Return a frame to display, (height, width, 3), several cameras side by side."""
        frame = self.frames[row]
        return frame if frame.ndim == 3 else np.concatenate(list(frame), axis=1)

    @cached_property
    def probed(self) -> np.ndarray:
        """Tool positions (n, 2) m of the test frames, read by a linear probe that was fitted on the other frames."""
        return fit_and_probe(self.pooled[~self.test], self.tool[~self.test], self.pooled[self.test])

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Singular values (min(N, D),) of the centred latents, largest first."""
        return torch.linalg.svdvals(self.pooled - self.pooled.mean(0)).numpy()

    @cached_property
    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (N, 2) on the two principal axes, and their shares (2,) of the variance."""
        centred = (self.pooled - self.pooled.mean(0)).double()
        values, axes = torch.linalg.eigh(centred.T @ centred)
        shares = (values.clamp(min=0) / values.clamp(min=0).sum().clamp(min=1e-30)).flip(0)
        return (centred @ axes.flip(1)[:, :2]).numpy(), shares[:2].numpy()

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Tool distance in m and latent distance (mean square over L) of 4000 random pairs of kept frames."""
        first, second = np.random.default_rng(0).integers(len(self.kept), size=(2, 4000))
        first, second = first[first != second], second[first != second]
        apart = np.linalg.norm(self.tool[self.kept[first]] - self.tool[self.kept[second]], axis=1)
        parts = [slice(i, i + 64) for i in range(0, len(first), 64)]  # whole latents may be large
        latent = [latent_distance_pairs(self.whole[first[p]], self.whole[second[p]]) for p in parts]
        return apart, np.concatenate(latent) if latent else np.zeros(0, np.float32)

    def nearest(self, query: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames nearest by latent to kept frame number `query`, at most one of each other episode.

        Returns rows (at most `count`), nearest first, and latent distances (mean square over L).
        """
        flat = self.whole.flatten(1)
        # |a - b|^2 without a copy of all latents.
        distance = self._squares - 2 * flat @ flat[query] + self._squares[query]
        distance = distance.clamp(min=0).numpy() / flat.shape[1]
        of = self.episode[self.kept]
        starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
        ends = np.r_[starts[1:], len(of)]
        best = np.array([s + int(distance[s:e].argmin()) for s, e in zip(starts, ends, strict=True)])
        best = best[of[best] != of[query]]
        best = best[np.argsort(distance[best], kind="stable")][:count]
        return self.kept[best], distance[best]

    @cached_property
    def _squares(self) -> torch.Tensor:
        return self.whole.flatten(1).square().sum(1)

    def pick_even_frames(self, count: int) -> np.ndarray:
        """Return the numbers of up to `count` kept test frames, evenly spread over the test episodes."""
        rows = np.flatnonzero(self.test[self.kept])
        return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]

    def pick_distant_frames(self, count: int) -> list[int]:
        """Return the numbers of up to `count` kept test frames whose tools are far from one another."""
        rows = self.pick_even_frames(MAX_QUERIES)
        tool = self.tool[self.kept[rows]]
        chosen = [int(np.linalg.norm(tool - tool.mean(0), axis=1).argmin())]
        while len(chosen) < min(count, len(rows)):
            apart = np.linalg.norm(tool[:, None] - tool[chosen], axis=2).min(1)
            chosen.append(int(apart.argmax()))
        return [int(rows[i]) for i in chosen]


def read_test_and_others(
    data: Path,
    robot: RobotConfig,
    config: ModelConfig,
    limit: int,
    progress: Callable[[int], None],
    cameras: tuple[str, ...] = (),
) -> list[Episode]:
    """Read the first `limit` episodes of a bag, and more until there are some of split test and some of another.

    progress: called with the number of frames read. cameras: see read_episodes. Raises InputError where the bag cannot
    be read or has no such episodes.
    """
    from jepa_ros.sim.cell import make_action_space

    urdf = read_robot_description(data)
    if urdf is None:
        raise InputError(f"bag {data}: expected the topic robot_description, found none")
    space = make_action_space(robot, urdf, config.tick)
    fields = (tuple(robot.joints), tuple(robot.gripper))
    episodes: list[Episode] = []
    for episode in read_episodes(data, space, fields, config.preprocessing.size, progress, cameras):
        episodes.append(episode)
        if len(episodes) >= limit and _has_test_and_others(episodes):
            break
    if not _has_test_and_others(episodes):
        splits = sorted({e.split for e in episodes})
        raise InputError(
            f"bag {data}: expected episodes of split test and of another to fit a probe on, found {len(episodes)} "
            f"of {', '.join(splits) or 'none'}"
        )
    return episodes


def _has_test_and_others(episodes: list[Episode]) -> bool:
    return len({e.split == "test" for e in episodes}) == 2


def encode_episodes(
    model: PredictiveModel,
    episodes: list[Episode],
    tick: float,
    progress: Callable[[int], None] = lambda frames: None,
    kept_bytes: int = KEPT_BYTES,
) -> LatentSpace:
    """Encode every frame of the episodes. tick: s between frames. progress: called with frames done.

    Where the latents do not fit into kept_bytes, only every n-th is kept whole; of the others the mean token is kept.
    """
    frames = np.concatenate([e.frames for e in episodes])
    lengths = [len(e.frames) for e in episodes]
    every = max(1, math.ceil(len(frames) * math.prod(model.latent_shape) * 4 / kept_bytes))
    pooled, whole = [], []
    for start in range(0, len(frames), BATCH):
        latents = encode_frames(model, frames[start : start + BATCH], BATCH).float()
        pooled.append(latents.mean(1) if latents.ndim > 2 else latents)
        whole.append(latents[-start % every :: every].clone())
        progress(start + len(latents))
    return LatentSpace(
        pooled=torch.cat(pooled),
        whole=torch.cat(whole),
        kept=np.arange(0, len(frames), every),
        frames=frames,
        tool=np.concatenate([e.tool for e in episodes]),
        episode=np.repeat(np.arange(len(episodes)), lengths),
        time=np.concatenate([tick * np.arange(n) for n in lengths]),
        test=np.repeat([e.split == "test" for e in episodes], lengths),
    )


def measure_latent_space(space: LatentSpace) -> dict[str, Any]:
    """Return the metrics for summary.json; undefined ones are None. Positions and distances of tools in m."""
    tool = space.tool[space.test]
    error = np.linalg.norm(space.probed - tool, axis=1)
    spread = ((tool - tool.mean(0)) ** 2).sum()
    health = measure_latents(space.pooled)
    apart, latent = space.pairs
    same = latent[apart < SAME_POSITION_M]
    return {
        "frames": len(space.frames),
        "test_frames": int(space.test.sum()),
        "dimensions": space.pooled.shape[1],
        "probe": {
            "r2": _finite(1 - (error**2).sum() / spread) if spread > 0 else None,
            "error_p50": _finite(np.median(error)),
            "error_p95": _finite(np.percentile(error, 95)),
        },
        "effective_rank": _finite(health["effective_rank"]),
        "dead_dimensions": _finite(health["dead_dimensions"]),
        "spread": _finite(health["spread"]),
        "collapse": describe_collapse(health) or None,
        "singular_values": [float(v) for v in space.spectrum[:256]],
        "plane_variance": [float(v) for v in space.plane[1]],
        "distance": {
            "rank_correlation": rank_correlation(apart, latent),
            "same_place_p50": _finite(np.median(same)) if len(same) else None,
            "any_p50": _finite(np.median(latent)) if len(latent) else None,
        },
        "neighbours": _measure_neighbours(space),
    }


def _measure_neighbours(space: LatentSpace) -> dict[str, Any]:
    """Return median tool distances, over test frames, from a frame to one of another episode.

    These are to the frame that is nearest by the latent, to the one that really is nearest, and to a random one.
    """
    rng, found = np.random.default_rng(0), []
    for number in space.pick_even_frames(MAX_QUERIES):
        row = space.kept[number]
        others = space.kept[space.episode[space.kept] != space.episode[row]]
        rows, _ = space.nearest(int(number), 1)
        if len(rows):
            apart = np.linalg.norm(space.tool[others] - space.tool[row], axis=1)
            found.append((np.linalg.norm(space.tool[rows[0]] - space.tool[row]), apart.min(), rng.choice(apart)))
    median = np.median(found, axis=0) if found else [None] * 3
    keys = ("tool_distance", "least_tool_distance", "random_tool_distance")
    return {"asked": len(found)} | {k: None if v is None else float(v) for k, v in zip(keys, median, strict=True)}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Spearman's rank correlation; None where one of them does not vary."""
    from scipy.stats import spearmanr

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return _finite(spearmanr(first, second).statistic)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
