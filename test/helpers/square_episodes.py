"""Episodes of a bright square that the actions move, to train small models on within seconds."""

import numpy as np

from jepa_ros.datasets.episodes import Episode, EpisodeSet, normalisation


def episode(rng, ticks, split):
    """A square that moves by the actions over 16 x 16 pixels; the joints are its place."""
    actions = np.repeat(rng.uniform(-1, 1, (ticks // 4 + 1, 2)), 4, axis=0)[:ticks]
    places = [np.array([8.0, 8.0])]
    for k, action in enumerate(actions):
        after = np.clip(places[-1] + action, 2, 13)
        actions[k] = after - places[-1]
        places.append(after)
    places = np.array(places)
    frames = np.zeros((ticks + 1, 16, 16, 3), np.uint8)
    for frame, (x, y) in zip(frames, places.round().astype(int), strict=True):
        frame[y - 2 : y + 2, x - 2 : x + 2] = 255
    velocities = np.vstack([actions, actions[-1:]])
    return Episode(
        frames, np.hstack([places, velocities]).astype(np.float32), actions.astype(np.float32), places, split
    )


def sets():
    """Six training and two validation episodes of 24 ticks."""
    rng = np.random.default_rng(0)
    episodes = [episode(rng, 24, s) for s in ["train"] * 6 + ["val"] * 2]
    mean, std = normalisation(episodes)
    return {s: EpisodeSet([e for e in episodes if e.split == s], mean, std) for s in ("train", "val")}
