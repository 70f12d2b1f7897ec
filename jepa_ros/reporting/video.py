"""Videos that every browser plays: H.264, yuv420p."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], rate: float) -> int:
    """Write frames (H, W, 3) uint8 rgb, all of one size, at ``rate`` Hz; returns how many. None make no file.

    The file appears under its name only when it is complete. Raises RuntimeError with ffmpeg's words when it fails.
    """
    import imageio_ffmpeg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    writer, count = None, 0
    try:
        for frame in frames:
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(partial),
                    (frame.shape[1], frame.shape[0]),
                    fps=rate,
                    codec="libx264",
                    pix_fmt_out="yuv420p",
                    macro_block_size=2,
                    quality=None,
                    output_params=["-crf", "22", "-preset", "veryfast", "-movflags", "+faststart"],
                    ffmpeg_log_level="error",
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(frame))
            count += 1
        if writer is not None:
            writer.close()
            writer = None
            os.replace(partial, path)
    except OSError as error:
        raise RuntimeError(f"video {path}: {' '.join(str(error).split())}") from error
    finally:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
    return count
