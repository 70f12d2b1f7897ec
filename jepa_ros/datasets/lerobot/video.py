"""Video files: writing frame by frame, and reading in order."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from jepa_ros.errors import InputError

CODEC, PIXELS = "libx264", "yuv420p"
OPTIONS = {"g": "2", "crf": "12", "preset": "medium", "threads": "1"}
"""A key frame every second frame, as in LeRobot's own writer: decoding two frames gives any frame."""


class VideoWriter:
    """Writes frames (S, S, 3) uint8 rgb to an mp4 file."""

    def __init__(self, path: Path, fps: int, size: int):
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames, self._fps, self._av = path, 0, fps, av
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(CODEC, rate=Fraction(fps), options=OPTIONS)
        self._stream.width = self._stream.height = size
        self._stream.pix_fmt = PIXELS
        self._stream.codec_context.thread_count = 1  # more threads would give different bytes

    def add(self, frames: np.ndarray) -> None:
        """Append frames (N, S, S, 3)."""
        for rgb in frames:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts = self.frames
            frame.time_base = Fraction(1, self._fps)
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Write what is buffered, and the index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def describe(path: Path) -> dict:
    """Return the properties of a video for info.json. Raises InputError where it cannot be read."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return {
                "video.height": stream.height,
                "video.width": stream.width,
                "video.codec": stream.codec_context.codec.canonical_name,
                "video.pix_fmt": stream.pix_fmt,
                "is_depth_map": False,
                "video.fps": round(stream.average_rate or stream.base_rate),
                "video.channels": 3,
                "has_audio": bool(container.streams.audio),
            }
    except Exception as error:  # garbage may raise anything in the demuxer
        raise InputError(f"video {path}: expected a readable video, found {error or 'none'}") from None


def read_video(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time in s, frame (H, W, 3) uint8 rgb) in order. Raises InputError where the file cannot be read."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24")
    except GeneratorExit:
        raise
    except Exception as error:  # as above
        raise InputError(f"video {path}: expected whole frames, found {error}") from None


def count_frames(path: Path) -> int:
    """Count the frames in the file, regardless of its header. Raises InputError."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return sum(1 for packet in container.demux(stream) if packet.size)
    except Exception as error:  # as above
        raise InputError(f"video {path}: expected a readable video, found {error or 'none'}") from None
