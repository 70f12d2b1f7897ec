"""Clips to pre-train on: from one stretch, never both trained on and held out, crop_randomly as one."""

import numpy as np
import pytest
import torch

from helpers.pretraining_models import frame_runs, make_clips
from jepa_ros.bags.cameras import FrameRun
from jepa_ros.errors import InputError
from jepa_ros.training.pretraining.loop import PIECE_CLIPS, Clips, Crops, crop_randomly, split_clips


def test_clips_are_strided_frames_of_one_segment():
    data = Clips(frame_runs(3, 10), 3, 2)
    assert len(data) == 3 * 6 and data.frames == 30
    clips = data.take(np.arange(len(data)))
    for number, clip in enumerate(clips):
        source, at = data.runs[number // 6], number % 6
        np.testing.assert_array_equal(clip, source.frames[at : at + 5 : 2])
    assert len(data.spread(7)) == 7 and len(data.spread(100)) == 18
    assert data.draw(5, np.random.default_rng(0)).shape == (5, 3, 16, 16, 3)


def numbered(lengths):
    """Stretches whose frames are numbered, 0 on."""
    ids = np.arange(sum(lengths), dtype=np.uint8)
    frames = np.broadcast_to(ids[:, None, None, None], (len(ids), 4, 4, 3))
    edges = np.cumsum([0, *lengths])
    return [FrameRun(frames[a:b], ids[a:b] * 0.1, "x") for a, b in zip(edges, edges[1:], strict=False)]


@pytest.mark.parametrize("lengths", [[20] * 10, [200], [9], [8, 3, 4], [4, 4]])
def test_no_frame_is_in_both_training_and_validation(lengths):
    train, held = split_clips(numbered(lengths), 4, 1, np.random.default_rng(0))
    seen, kept = ({int(i) for s in part for i in s.frames[:, 0, 0, 0]} for part in (train, held))
    assert seen and kept and not seen & kept
    assert len(seen | kept) == sum(n for n in lengths if n >= 4)
    if sum(lengths) == 200:
        assert len(kept) <= max(20, PIECE_CLIPS * 4)


def test_too_few_frames_are_refused():
    for lengths in ([3, 3], [7], []):
        found = "the longest run has"
        with pytest.raises(InputError, match=f"two clips of 4 frames, 1 apart, .* {found}"):
            split_clips(numbered(lengths), 4, 1, np.random.default_rng(0))


def test_the_random_crop_is_fixed_within_a_clip_and_differs_between_clips():
    clips = make_clips(1).expand(6, -1, -1, -1, -1)[:, :1].expand(-1, 4, -1, -1, -1)
    found = crop_randomly(clips, Crops(), np.random.default_rng(0))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert len(torch.unique(found[:, 0].flatten(1), dim=0)) == 6
    assert found.min() >= clips.min() - 1e-4 and found.max() <= clips.max() + 1e-4
    whole = crop_randomly(clips, Crops((1.0, 1.0), (1.0, 1.0)), np.random.default_rng(0))
    torch.testing.assert_close(whole, clips, atol=1e-4, rtol=0)


def test_the_random_crop_covers_the_requested_share_of_the_image():
    ramp = torch.arange(64.0).expand(1, 1, 3, 64, 64)
    found = crop_randomly(ramp, Crops((0.25, 0.25), (1.0, 1.0)), np.random.default_rng(0))
    assert float(found.max() - found.min()) == pytest.approx(31.5, abs=0.6)  # half of the width
