"""Masks: what is seen and what is predicted are apart, of the published sizes, and reach every part of the picture."""

import numpy as np
import pytest

from jepa_ros.training.pretraining.models import LONG_RANGE, SHORT_RANGE, Blocks, block_masks, tube_masks

GRID, STEPS, BATCH = 14, 4, 16


def draws(count=40):
    return [np.random.default_rng([7, k]) for k in range(count)]


def tubes(blocks, grid=GRID, batch=BATCH, count=40):
    return [tube_masks(grid, STEPS, blocks, batch, rng) for rng in draws(count)]


def overlap(masks):
    return [np.intersect1d(c, t.ravel()).size for c, t in zip(masks.context, masks.targets, strict=True)]


@pytest.mark.parametrize("grid", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("blocks", [SHORT_RANGE, LONG_RANGE])
def test_a_patch_is_masked_at_every_step_or_at_none(blocks, grid):
    for masks in tubes(blocks, grid, count=10):
        assert overlap(masks) == [0] * BATCH
        for tokens in (masks.context, masks.targets[:, 0]):
            assert tokens.dtype == np.int64 and tokens.min() >= 0 and tokens.max() < STEPS * grid * grid
            assert tokens.shape[1] % STEPS == 0 and tokens.size
            places = tokens.reshape(BATCH, STEPS, -1)
            assert (places - np.arange(STEPS)[:, None] * grid * grid == places[:, :1]).all()
            assert (np.diff(tokens, axis=1) > 0).all()


@pytest.mark.parametrize("grid", [2, 3, 4, 8, 16])
def test_image_mask_targets_do_not_overlap_the_context(grid):
    for rng in draws(10):
        masks = block_masks(grid, BATCH, rng)
        assert overlap(masks) == [0] * BATCH
        assert masks.targets.shape[:2] == (BATCH, 4) and masks.context.size
        for tokens in (masks.context, masks.targets):
            assert tokens.min() >= 0 and tokens.max() < grid * grid and (np.diff(tokens) > 0).all()


def test_a_batch_of_one_is_split_completely_into_context_and_targets():
    """Nothing is left out where there is no other row to be as long as."""
    for masks in tubes(SHORT_RANGE, batch=1):
        assert masks.context.shape[1] + masks.targets.shape[2] == STEPS * GRID * GRID


@pytest.mark.parametrize("blocks, share", [(SHORT_RANGE, 0.626), (LONG_RANGE, 0.811)])
def test_masks_hide_the_same_share_as_the_published_code(blocks, share):
    """Means of 1000 masks of 14 x 14 patches that V-JEPA's own generator drew."""
    shares = [m.targets.shape[2] / (STEPS * GRID * GRID) for m in tubes(blocks, batch=1, count=400)]
    assert np.mean(shares) == pytest.approx(share, abs=0.02)
    assert max(shares) <= 0.97


def rectangle(tokens, grid):
    """Height and width of the tokens' bounding box, and whether they fill it."""
    rows, columns = tokens // grid, tokens % grid
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    return height, width, height * width == len(tokens)


def test_image_mask_targets_are_rectangles_of_the_published_size():
    for rng in draws():
        masks = block_masks(GRID, BATCH, rng)
        sizes = {rectangle(group, GRID) for row in masks.targets for group in row}
        assert len(sizes) == 1, "one size a batch"
        height, width, whole = sizes.pop()
        assert whole and 0.12 <= height * width / GRID**2 <= 0.24  # 0.15 to 0.2, and what rounding to patches does
        assert 0.55 <= height / width <= 2.0


def test_image_mask_context_is_most_of_what_the_targets_leave():
    for rng in draws():
        masks = block_masks(GRID, 1, rng)
        left = GRID**2 - np.unique(masks.targets).size
        assert 0.7 * left <= masks.context.shape[1] <= left


def test_a_mask_block_has_the_requested_scale_and_aspect_ratio():
    for rng in draws():
        masks = tube_masks(20, 1, Blocks(1, (0.25, 0.25), (1.0, 1.0)), 1, rng)
        assert rectangle(masks.targets[0, 0], 20) == (10, 10, True)
        masks = tube_masks(20, 1, Blocks(1, (0.18, 0.18), (2.0, 2.0)), 1, rng)
        assert rectangle(masks.targets[0, 0], 20) == (12, 6, True)


@pytest.mark.parametrize("draw", [lambda r: tube_masks(8, 1, SHORT_RANGE, 16, r), lambda r: block_masks(8, 16, r)])
def test_every_patch_is_sometimes_context_and_sometimes_target(draw):
    seen, predicted = np.zeros(64), np.zeros(64)
    for rng in draws(60):
        masks = draw(rng)
        np.add.at(seen, masks.context, 1)
        np.add.at(predicted, np.concatenate([np.unique(row) for row in masks.targets]), 1)
    assert seen.min() > 0 and predicted.min() > 0


def test_masks_prefer_no_side_of_the_image():
    """Context of the long-range mask: left and right, upper and lower halves are seen alike."""
    seen = np.zeros((GRID, GRID))
    for masks in tubes(LONG_RANGE, count=150):
        np.add.at(seen.ravel(), masks.context % GRID**2, 1)
    for one, other in ((seen[:7], seen[7:]), (seen[:, :7], seen[:, 7:])):
        assert one.sum() / other.sum() == pytest.approx(1, abs=0.15)


def test_the_same_seed_gives_the_same_masks():
    for draw in (lambda r: tube_masks(8, 2, LONG_RANGE, 4, r), lambda r: block_masks(8, 4, r)):
        one, same, other = (draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
        assert np.array_equal(one.context, same.context) and np.array_equal(one.targets, same.targets)
        assert one.context.shape != other.context.shape or not np.array_equal(one.context, other.context)
