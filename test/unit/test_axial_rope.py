"""Rotary positions on a grid of time, rows and columns."""

import torch

from jepa_ros.world_model.dino_wm.predictor import axial_rope, rotate


@torch.no_grad()
def test_rope_scores_depend_only_on_relative_positions_in_time_and_space():
    rng = torch.Generator().manual_seed(2)
    q, k = (torch.randn(20, generator=rng) for _ in range(2))

    def scores(first):
        table = axial_rope(torch.arange(3) + first, 4, 4, 20)
        return (rotate(q.expand(48, 20), *table) @ rotate(k.expand(48, 20), *table).T).view(3, 4, 4, 3, 4, 4)

    now = scores(0)
    torch.testing.assert_close(scores(7), now, atol=1e-5, rtol=1e-5)
    for axis in range(3):
        low, high = now, now
        for dimension in (axis, axis + 3):
            size = now.shape[dimension] - 1
            low, high = low.narrow(dimension, 0, size), high.narrow(dimension, 1, size)
        torch.testing.assert_close(low, high, atol=1e-5, rtol=1e-5)
        assert (now.select(axis + 3, 0) - now.select(axis + 3, 1)).abs().max() > 1e-2  # and on that it does depend


@torch.no_grad()
def test_rope_keeps_lengths_and_rotates_a_third_of_the_pairs_by_each_axis():
    cos, sin = axial_rope(torch.arange(2), 3, 5, 14)  # 7 pairs: 2 an axis and one that stays
    assert cos.shape == sin.shape == (30, 7)
    angles = torch.atan2(sin, cos).view(2, 3, 5, 7)
    for axis, pair in enumerate((0, 2, 4)):
        expected = torch.arange(angles.shape[axis]).view([-1 if i == axis else 1 for i in range(3)]).expand(2, 3, 5)
        turned = torch.atan2(torch.sin(expected.float()), torch.cos(expected.float()))
        torch.testing.assert_close(angles[..., pair], turned)
    assert not angles[..., 6].any()
    x = torch.randn(30, 14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotate(x, cos, sin).norm(dim=1), x.norm(dim=1))
