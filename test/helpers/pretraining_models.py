"""Small models of both methods of pre-training, and clips of moving images to train them on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.video_bags import wander
from jepa_ros.bags.cameras import FrameRun
from jepa_ros.training.pretraining.loop import Clips, Pretrainer, PretrainingSchedule, normalize_clips, split_clips
from jepa_ros.training.pretraining.models import EncoderSizes, build_masked_predictor

torch.set_num_threads(1)

VIDEO = EncoderSizes("vjepa", size=16, patch=4, frames=4, width=24, depth=2, heads=3)
IMAGE = replace(VIDEO, method="ijepa", frames=1)
SCHEDULE = PretrainingSchedule(updates=12, batch=4, warm_up=3, every=4, momentum=0.9)
OPTIONS = {
    "size": 16,
    "patch": 4,
    "frames": 4,
    "width": 24,
    "depth": 2,
    "updates": 6,
    "batch": 4,
    "topic": ("image",),
}
both = pytest.mark.parametrize("sizes", [VIDEO, IMAGE], ids=["vjepa", "ijepa"])


def frame_runs(count=4, length=20):
    return [FrameRun(wander(length, seed=k), np.arange(length) * 0.05, f"{k}") for k in range(count)]


def trainer(sizes, seed=0, schedule=SCHEDULE, weights=0):
    train, held = split_clips(frame_runs(), sizes.frames, 1, np.random.default_rng(0))
    clips = (Clips(part, sizes.frames, 1) for part in (train, held))
    return Pretrainer(build_masked_predictor(sizes, weights), *clips, schedule, seed)


def make_clips(count=3, frames=4):
    return normalize_clips(np.stack([wander(frames, seed=90 + k) for k in range(count)]))
