"""Coverage of a recording, read back from the bag: tool positions, executed actions, and some example images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_ros.bags.cameras import decode_image
from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.typestore import ACTION, COMPRESSED_IMAGE, EPISODE, JOINT_STATE
from jepa_ros.robot.motion.action_space import PlanarVelocity

STATE_STRIDE = 10
IMAGE_STRIDE, MAX_IMAGES = 500, 6


def read_coverage(
    path: Path, space: PlanarVelocity, joints: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[str]]:
    """Return tool positions (N, 2) m of every tenth joint state, executed actions (M, A), a few images of the bag, and
    the split of each episode."""
    tool, actions, images, splits, states, seen = [], [], [], [], 0, 0
    with open_bag(path, strict=True) as bag:
        wanted = [t for t in bag.topics if t.msgtype in (ACTION, COMPRESSED_IMAGE, EPISODE, JOINT_STATE)]
        for raw in bag.messages(wanted):
            if raw.msgtype == COMPRESSED_IMAGE:
                seen += 1
                if seen % IMAGE_STRIDE == 1 and len(images) < MAX_IMAGES:
                    images.append(decode_image(raw.deserialise()))
            elif raw.msgtype == JOINT_STATE:
                states += 1
                if states % STATE_STRIDE == 0:
                    message = raw.deserialise()
                    tool.append(space.tool_coordinates(message.position[[message.name.index(j) for j in joints]]))
            elif raw.msgtype == ACTION:
                actions.append(raw.deserialise().values)
            else:
                splits.append(raw.deserialise().split)
    return np.array(tool), np.array(actions), images, splits


def share_covered(space: PlanarVelocity, tool: np.ndarray, cell: float = 0.02) -> float:
    """Return the share of the workspace's cells of `cell` m that contain one of the tool positions (N, 2) m."""
    low = space.workspace.min(0)
    counts = np.ceil((space.workspace.max(0) - low) / cell).astype(int)
    rows, columns = np.indices(counts).reshape(2, -1)
    inside = {
        (i, j) for i, j in zip(rows, columns, strict=True) if space.is_inside(low + cell * (np.array([i, j]) + 0.5))
    }
    visited = {tuple(ij) for ij in np.floor((np.reshape(tool, (-1, 2)) - low) / cell).astype(int)}
    return len(inside & visited) / max(1, len(inside))


def plot_coverage(space: PlanarVelocity, tool: np.ndarray, speed: np.ndarray):
    """Return a figure of the tool positions (N, 2) m in the workspace, and a histogram of the executed speeds (M,)."""
    from jepa_ros.reporting import plots

    figure, (left, right) = plots.figure(2)
    left.plot(*tool.T, ".", ms=2, alpha=0.4)
    left.plot(*np.vstack([space.workspace, space.workspace[:1]]).T, lw=1)
    left.set(title="Tool positions", xlabel="x (m)", ylabel="y (m)", aspect="equal")
    right.hist(speed, bins=40)
    right.set(title="Executed speed", xlabel="share of the maximum", ylabel="ticks")
    return figure
