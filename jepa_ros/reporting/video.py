"""Videos that every browser plays: H.264, yuv420p."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from jepa_ros.reporting.output import replace_file


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], rate: float) -> int:
    """Write frames (H, W, 3) uint8 rgb, all of one size, at ``rate`` Hz; returns how many. None make no file.

    The file appears under its name only when it is complete. Raises RuntimeError with ffmpeg's words when it fails.
    """
    import imageio_ffmpeg

    path, writer, count = Path(path), None, 0
    try:
        with replace_file(path) as partial, ExitStack() as stack:  # ffmpeg ends before the file is moved
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
                    stack.callback(writer.close)
                    writer.send(None)
                writer.send(np.ascontiguousarray(frame))
                count += 1
    except OSError as error:
        raise RuntimeError(f"video {path}: {' '.join(str(error).split())}") from error
    return count
