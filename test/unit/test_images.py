import cv2
import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.images import ENCODINGS, ImageError, decode, decode_compressed, preprocess


def picture(height=24, width=32):
    """A smooth colour gradient: survives chroma subsampling and Bayer interpolation to within a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 4 * x, 60 + 5 * y, 200 - 3 * x], axis=-1).astype(np.uint8)


def fields(encoding, rgb, bigendian=False):
    """data and bytes a pixel of rgb in an encoding, written independently of the decoder."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    order = {"rgb": (r, g, b), "bgr": (b, g, r), "rgba": (r, g, b, r), "bgra": (b, g, r, r)}
    name = encoding.rstrip("0123456789")
    wide = encoding.endswith("16")
    if name in order:
        pixels = np.stack(order[name], axis=-1)
    elif name == "mono":
        pixels = g[..., None]
    elif name.startswith("bayer_"):
        planes = {"r": r, "g": g, "b": b}
        pattern = name.removeprefix("bayer_")
        pixels = np.zeros(rgb.shape[:2], np.uint8)
        for k, letter in enumerate(pattern):
            pixels[k // 2 :: 2, k % 2 :: 2] = planes[letter][k // 2 :: 2, k % 2 :: 2]
        pixels = pixels[..., None]
    else:
        yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_UYVY if encoding in ("yuv422", "uyvy") else cv2.COLOR_RGB2YUV_YUYV)
        pixels = yuv
    if wide:
        pixels = (pixels.astype(np.uint16) << 8 | 0x5A).astype(">u2" if bigendian else "<u2")
    return pixels.tobytes(), pixels.dtype.itemsize * pixels.shape[-1]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_decoded(encoding):
    rgb = picture()
    data, pixel = fields(encoding, rgb)
    out = decode(encoding, 32, 24, 32 * pixel, data)
    expected = np.repeat(rgb[..., 1:2], 3, axis=2) if encoding.startswith("mono") else rgb
    tolerance = 12 if encoding.startswith(("bayer", "yu", "uyvy")) else 0
    assert out.shape == (24, 32, 3) and out.dtype == np.uint8
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(out[inner].astype(int) - expected[inner]).max() <= tolerance


@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e.endswith("16")])
def test_big_endian_channels_are_decoded(encoding):
    data, pixel = fields(encoding, picture(), bigendian=True)
    little, _ = fields(encoding, picture())
    out = decode(encoding, 32, 24, 32 * pixel, data, is_bigendian=1)
    assert (out == decode(encoding, 32, 24, 32 * pixel, little)).all()


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "mono16"])
def test_padded_rows_are_decoded(encoding):
    data, pixel = fields(encoding, picture())
    rows = np.frombuffer(data, np.uint8).reshape(24, -1)
    padded = np.pad(rows, ((0, 0), (0, 10)), constant_values=255)
    step = 32 * pixel + 10
    assert (decode(encoding, 32, 24, step, padded.tobytes()) == decode(encoding, 32, 24, 32 * pixel, data)).all()


def test_rgb8_is_not_copied():
    data = bytearray(24 * 32 * 3)
    out = decode("rgb8", 32, 24, 96, data)
    data[0] = 7
    assert out[0, 0, 0] == 7


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        ("encoding", {"encoding": "32FC1"}),
        ("encoding", {"encoding": ""}),
        ("size", {"width": 0}),
        ("size", {"height": 10**6}),
        ("size", {"encoding": "yuyv", "width": 31}),
        ("step", {"step": 95}),
        ("step", {"encoding": "rgb16", "step": 32 * 6 + 1}),
        ("empty", {"data": b""}),
        ("truncated", {"data": bytes(96 * 24 - 1)}),
        ("truncated", {"data": bytes(96 * 24 + 1)}),
        ("endianness", {"encoding": "mono16", "is_bigendian": 7}),
    ],
)
def test_contradicting_image_fields_raise_an_error_with_its_cause(cause, change):
    good = {"encoding": "rgb8", "width": 32, "height": 24, "step": 96, "data": bytes(96 * 24), "is_bigendian": 0}
    decode(**good)
    with pytest.raises(ImageError) as caught:
        decode(**{**good, **change})
    assert caught.value.cause == cause and cause in ImageError.CAUSES
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("extension", "format"), [("jpg", "rgb8; jpeg compressed bgr8"), ("png", "png"), ("jpg", "jpeg")]
)
def test_compressed_images_are_decoded_to_rgb(extension, format):
    ok, data = cv2.imencode(f".{extension}", picture()[..., ::-1])
    out = decode_compressed(format, data.tobytes() + (bytes(40) if extension == "jpg" else b""))
    assert ok and np.abs(out.astype(int) - picture()).max() <= 16


def test_swapped_channels_are_recognised_by_the_format():
    _, data = cv2.imencode(".png", picture())
    assert (decode_compressed("rgb8; png compressed rgb8", data) == picture()).all()


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_truncated_compressed_images_are_refused(extension):
    _, data = cv2.imencode(f".{extension}", picture())
    for cut in (len(data) // 2, len(data) - 3):
        with pytest.raises(ImageError) as caught:
            decode_compressed("jpeg", data[:cut].tobytes())
        assert caught.value.cause == "truncated"


@pytest.mark.parametrize(
    ("cause", "format", "data"),
    [
        ("empty", "jpeg", b""),
        ("undecodable", "jpeg", b"nonsense" * 9),
        ("encoding", "16UC1; compressedDepth png", b"x"),
    ],
)
def test_undecodable_compressed_images_are_refused(cause, format, data):
    with pytest.raises(ImageError) as caught:
        decode_compressed(format, data)
    assert caught.value.cause == cause


def test_preprocessing_crops_the_centre_and_averages_pixels():
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[:, 40:280] = 100
    rgb[:, 160:280, 1] = 200
    out = preprocess(rgb, 64)
    assert out.shape == (64, 64, 3) and out.dtype == np.uint8 and out.flags.c_contiguous
    assert (out[:, :, 0] == 100).all() and (out[:, :32, 1] == 100).all() and (out[:, 32:, 1] == 200).all()


def test_preprocessing_does_not_change_an_image_of_the_right_size():
    rgb = picture(64, 64)
    assert (preprocess(rgb, 64) == rgb).all()


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), float), np.zeros((0, 4, 3), np.uint8)])
def test_preprocessing_refuses_arrays_that_are_not_rgb_images(bad):
    with pytest.raises(ImageError):
        preprocess(bad, 64)
