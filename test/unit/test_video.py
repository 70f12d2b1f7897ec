"""Videos are complete, in order, and in the one format that plays everywhere."""

import av
import numpy as np
import pytest

from jepa_ros.reporting.video import write_video


def test_a_video_is_h264_and_shows_the_frames_in_order(tmp_path):
    shades = np.linspace(30, 220, 20).astype(np.uint8)
    frames = (np.full((240, 320, 3), shade, np.uint8) for shade in shades)
    path = tmp_path / "out" / "demo.mp4"
    assert write_video(path, frames, rate=15) == 20
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (320, 240, 15)
        seen = [frame.to_ndarray(format="rgb24").mean() for frame in video.decode(stream)]
    assert seen == pytest.approx(shades.astype(float), abs=4)
    assert [p.name for p in path.parent.iterdir()] == ["demo.mp4"]


def test_no_video_is_written_without_frames(tmp_path):
    assert write_video(tmp_path / "demo.mp4", [], 15) == 0
    assert not list(tmp_path.iterdir())


def test_a_failing_source_leaves_no_partial_video(tmp_path):
    def frames():
        yield np.zeros((48, 64, 3), np.uint8)
        raise KeyError("gone")

    with pytest.raises(KeyError):
        write_video(tmp_path / "demo.mp4", frames(), 15)
    assert not list(tmp_path.iterdir())
