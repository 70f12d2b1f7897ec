"""Camera images as arrays: decoding of the fields of ROS images, and the preprocessing of all models. Without ROS.

Nodes, training and evaluation call the same functions, with fields of messages or recordings, or with rendered images.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from jepa_ros.errors import InputError

MAX_SIDE_PX = 16384
MAX_PIXELS = 32_000_000
"""Of a compressed image, whose header may claim gigabytes."""
_IMREAD_RGB = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)
"""Decodes to RGB where OpenCV can, which saves a conversion."""


class ImageError(InputError):
    """An image that cannot be used. `cause`: one word for counters and diagnostics."""

    CAUSES = ("encoding", "size", "step", "truncated", "empty", "endianness", "undecodable")

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class _Layout(NamedTuple):
    """Memory layout of an encoding, and its conversion to RGB."""

    pixel_bytes: int
    dtype: str
    channels: int
    code: int | None  # of cv2.cvtColor; None for RGB


def _bayer(pattern: str) -> int:
    # These cv2 names are of the first two rows, as in ROS (the older names are shifted by a pixel).
    return getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB")


_LAYOUTS = {
    "rgb8": _Layout(3, "u1", 3, None),
    "bgr8": _Layout(3, "u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, "u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, "u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(1, "u1", 1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Layout(6, "u2", 3, None),
    "bgr16": _Layout(6, "u2", 3, cv2.COLOR_BGR2RGB),
    "mono16": _Layout(2, "u2", 1, cv2.COLOR_GRAY2RGB),
    "yuv422": _Layout(2, "u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Layout(2, "u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Layout(2, "u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": _Layout(2, "u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    **{f"bayer_{p}8": _Layout(1, "u1", 1, _bayer(p)) for p in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{p}16": _Layout(2, "u2", 1, _bayer(p)) for p in ("rggb", "bggr", "gbrg", "grbg")},
}

ENCODINGS = tuple(_LAYOUTS)
"""The encodings of sensor_msgs/Image that `decode` understands (names of sensor_msgs/image_encodings.hpp)."""


def decode(encoding: str, width: int, height: int, step: int, data, is_bigendian: int = 0) -> np.ndarray:
    """Decode the fields of a sensor_msgs/Image to (height, width, 3) uint8 RGB.

    data: any buffer of bytes; for rgb8 the result is a view of it. Rows may be padded (`step` above width × bytes a
    pixel). 16-bit channels keep their upper 8 bits. is_bigendian: used for 16-bit channels only, since many drivers do
    not set it. Raises ImageError with the cause where the fields contradict each other.
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError("encoding", f"image encoding: expected one of {', '.join(ENCODINGS)}, found {encoding!r}")
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise ImageError("size", f"image size: expected 1 to {MAX_SIDE_PX} pixels a side, found {width} x {height}")
    if layout.channels == 2 and width % 2:
        raise ImageError("size", f"image size: expected an even width for {encoding}, found {width}")
    row = width * layout.pixel_bytes
    if step < row or (layout.dtype == "u2" and step % 2):
        raise ImageError("step", f"image step: expected at least {row} for {width} {encoding} pixels, found {step}")
    raw = np.frombuffer(data, np.uint8)
    if raw.size == 0:
        raise ImageError("empty", f"image data: expected {step * height} bytes, found none")
    if raw.size != step * height:
        raise ImageError("truncated", f"image data: expected {step} x {height} bytes, found {raw.size}")
    if layout.dtype == "u2" and is_bigendian not in (0, 1):
        raise ImageError("endianness", f"image is_bigendian: expected 0 or 1 for {encoding}, found {is_bigendian}")
    pixels = raw.reshape(height, step)[:, :row]
    if layout.dtype == "u2":
        pixels = np.ascontiguousarray(pixels[:, 0 if is_bigendian else 1 :: 2])  # the upper byte of each channel
    pixels = pixels.reshape(height, width, layout.channels) if layout.channels > 1 else pixels.reshape(height, width)
    return pixels if layout.code is None else cv2.cvtColor(pixels, layout.code)


def decode_compressed(format: str, data) -> np.ndarray:
    """Decode the fields of a sensor_msgs/CompressedImage to (height, width, 3) uint8 RGB.

    format: of image_transport ("jpeg", "png", "rgb8; jpeg compressed bgr8", ...). Raises ImageError with the cause,
    also for depth images and for a truncated JPEG or PNG, which decoders would fill with grey.
    """
    if "compresseddepth" in format.lower().replace(" ", ""):
        raise ImageError("encoding", f"compressed image format: expected a colour or grey image, found {format!r}")
    raw = bytes(memoryview(data).cast("B"))
    if not raw:
        raise ImageError("empty", f"compressed image data: expected a {format or 'compressed'} image, found no bytes")
    if _is_truncated(raw):
        raise ImageError("truncated", "compressed image data: expected a whole image, found a truncated one")
    width, height = _read_size(raw, format)
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise ImageError("size", f"compressed image: expected 1 to {MAX_PIXELS} pixels, found {width} x {height}")
    # With the option RGB of compressed_image_transport the channels are swapped in the file.
    swapped = format.rstrip().endswith("compressed rgb8")
    flag = cv2.IMREAD_COLOR if swapped else _IMREAD_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageError(
            "undecodable", f"compressed image data: expected an image in format {format!r}, found other bytes"
        )
    return pixels if swapped or flag != cv2.IMREAD_COLOR else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def preprocess(rgb: np.ndarray, size: int) -> np.ndarray:
    """Return the input of the models: the central square of (H, W, 3) uint8 RGB, resized by area to (size, size, 3)."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ImageError("size", f"image: expected (H, W, 3) uint8, found {rgb.shape} {rgb.dtype}")
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = rgb[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def _read_size(raw: bytes, format: str) -> tuple[int, int]:
    """Return width and height in the header of a JPEG or PNG; (0, 0) for a JPEG without one."""
    if raw.startswith(b"\x89PNG\r\n\x1a\n") and len(raw) >= 24:
        return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")
    if not raw.startswith(b"\xff\xd8"):
        raise ImageError(
            "undecodable", f"compressed image data: expected a JPEG or PNG in format {format!r}, found other bytes"
        )
    at = 2
    while (at := raw.find(b"\xff", at)) >= 0 and at + 9 <= len(raw):
        marker = raw[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            return int.from_bytes(raw[at + 7 : at + 9], "big"), int.from_bytes(raw[at + 5 : at + 7], "big")
        alone = marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8  # no length follows
        at += 1 if marker == 0xFF else 2 if alone else 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return 0, 0


def _is_truncated(raw: bytes) -> bool:
    raw = raw.rstrip(b"\x00")  # cameras pad the end of their buffers
    if raw.startswith(b"\xff\xd8"):  # JPEG ends with a marker
        return not raw.endswith(b"\xff\xd9")
    if raw.startswith(b"\x89PNG"):  # chunks: length, type, content, checksum; decoders allocate the length
        at = 8
        while at + 12 <= len(raw):
            length, kind = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
            at += 12 + length
            if kind == b"IEND":
                return at > len(raw)
        return True
    return False
