"""Rotary positions of V-JEPA 2, with the layout of angles that its weights were trained with."""

import torch

from jepa_ros.world_model.vjepa2_ac.predictor import axis_width, rotate, rotation


def test_an_axis_has_an_even_width_of_at_most_a_third_of_a_head():
    assert [axis_width(head) for head in (64, 80, 24, 12)] == [20, 26, 8, 4]


def test_a_token_at_the_origin_is_not_rotated():
    x = torch.randn(2, 3, 1, 14)
    assert torch.equal(rotate(x, *rotation(torch.zeros(1, 3), 14)), x)


def test_each_axis_rotates_its_own_part():
    x = torch.randn(1, 14)
    for axis in range(3):
        position = torch.zeros(1, 3)
        position[0, axis] = 2.0
        changed = rotate(x, *rotation(position, 14)) != x
        assert changed[0].tolist() == [4 * axis <= i < 4 * (axis + 1) for i in range(14)]


def test_rotation_angles_have_the_layout_of_the_published_weights():
    """Numbers 0 and 1 are turned as a pair, by angles p and p / 100: what the published weights expect."""
    p = 0.7
    cosines, sines = rotation(torch.tensor([[p, 0.0, 0.0]]), 12)
    slow = p / 100
    expected = torch.tensor([p, slow, p, slow] + [0.0] * 8)
    torch.testing.assert_close(cosines[0], expected.cos())
    torch.testing.assert_close(sines[0], expected.sin())
    x = torch.arange(1.0, 13.0)[None]
    turned = rotate(x, cosines, sines)[0]
    torch.testing.assert_close(turned[0], x[0, 0] * cosines[0, 0] - x[0, 1] * sines[0, 0])
    torch.testing.assert_close(turned[1], x[0, 1] * cosines[0, 1] + x[0, 0] * sines[0, 1])
