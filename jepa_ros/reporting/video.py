"""Videos that every browser plays: H.264, yuv420p."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from jepa_ros.text_files import atomic_path


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], rate: float) -> int:
    """Write frames (H, W, 3) uint8 rgb, all of one size, at `rate` Hz; return how many.

    An odd width or height is rounded down. Without frames no file is written, and the file appears under its name only
    when it is complete. Raises RuntimeError with FFmpeg's message when encoding or writing fails.
    """
    import av

    frames = iter(frames)
    if (first := next(frames, None)) is None:
        return 0
    count = 0
    height, width = (side // 2 * 2 for side in first.shape[:2])
    try:
        with atomic_path(path) as partial, av.open(str(partial), "w", options={"movflags": "+faststart"}) as video:
            stream = video.add_stream("libx264", Fraction(rate).limit_denominator(1000))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": "22", "preset": "veryfast"}
            for frame in itertools.chain([first], frames):
                pixels = np.ascontiguousarray(frame[:height, :width])
                video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                count += 1
            video.mux(stream.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise RuntimeError(f"video {path}: {' '.join(str(error).split())}") from error
    return count
