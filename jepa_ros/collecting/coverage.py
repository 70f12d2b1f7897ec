"""What a recording covers, read back from the bag itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.typestore import typestore
from jepa_ros.images import decode_compressed
from jepa_ros.robot.motion.action_space import PlanarVelocity


def read_coverage(path: Path, space: PlanarVelocity, joints: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, list]:
    """Tool positions (N, 2) m of every tenth joint state, executed actions (M, A), and a few pictures of the bag."""
    types, tool, actions, pictures, seen = typestore(), [], [], [], 0
    with open_bag(path) as reader:
        wanted = [c for c in reader.connections if c.msgtype.endswith(("JointState", "Action", "CompressedImage"))]
        for connection, _, raw in reader.messages(wanted):
            if connection.msgtype.endswith("CompressedImage"):
                seen += 1
                if seen % 500 == 1 and len(pictures) < 6:
                    message = types.deserialize_cdr(raw, connection.msgtype)
                    pictures.append(decode_compressed(message.format, message.data))
                continue
            if connection.msgtype.endswith("JointState"):
                seen += 1
                if seen % 10:
                    continue
            message = types.deserialize_cdr(raw, connection.msgtype)
            if connection.msgtype.endswith("Action"):
                actions.append(message.values)
            else:
                tool.append(space.tool_coordinates(message.position[[message.name.index(j) for j in joints]]))
    return np.array(tool), np.array(actions), pictures


def share_covered(space: PlanarVelocity, tool: np.ndarray, cell: float = 0.02) -> float:
    """Share of the workspace's cells of `cell` m that tool positions (N, 2) m were in."""
    low = space.workspace.min(0)
    counts = np.ceil((space.workspace.max(0) - low) / cell).astype(int)
    rows, columns = np.indices(counts).reshape(2, -1)
    inside = {
        (i, j) for i, j in zip(rows, columns, strict=True) if space.is_inside(low + cell * (np.array([i, j]) + 0.5))
    }
    been = {tuple(ij) for ij in np.floor((np.reshape(tool, (-1, 2)) - low) / cell).astype(int)}
    return len(inside & been) / max(1, len(inside))
