"""Frames are found in one another along the tree, however it is rooted."""

import numpy as np
import pytest

from jepa_ros.robot.transforms import TransformTree, rotation_matrix

QUARTER = np.array([0, 0, np.sqrt(0.5), np.sqrt(0.5)])  # about z
STRAIGHT = np.array([0, 0, 0, 1.0])


def test_positions_are_transformed_through_rotated_parents():
    tree = TransformTree()
    tree.set("arm", "world", (1, 0, 0), QUARTER)
    tree.set("tool", "arm", (2, 0, 0), STRAIGHT)
    assert tree.position("tool", "world") == pytest.approx([1, 2, 0])
    assert tree.position("world", "tool") == pytest.approx([-2, 1, 0])
    assert tree.position("tool", "arm") == pytest.approx([2, 0, 0])


def test_the_newest_transform_is_used():
    tree = TransformTree()
    for x in (1, 5):
        tree.set("tool", "world", (x, 0, 0), STRAIGHT)
    assert tree.position("tool", "world") == pytest.approx([5, 0, 0])


def test_unconnected_frames_have_no_position():
    tree = TransformTree()
    assert tree.position("tool", "world") is None
    tree.set("tool", "other", (1, 0, 0), STRAIGHT)
    assert tree.position("tool", "world") is None


def test_a_loop_of_frames_does_not_hang():
    tree = TransformTree()
    tree.set("a", "b", (1, 0, 0), STRAIGHT)
    tree.set("b", "a", (1, 0, 0), STRAIGHT)
    tree.position("a", "world")


def test_quaternions_need_not_be_of_unit_length():
    assert rotation_matrix(3 * QUARTER) @ [1, 0, 0] == pytest.approx([0, 1, 0])
