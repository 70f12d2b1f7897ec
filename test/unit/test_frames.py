import numpy as np
import pytest

from jepa_ros.frame_checks import FrameChecks, FrameDropped

S = 1_000_000_000
NOW = 1_700_000_000 * S


def checks(**bounds):
    return FrameChecks(**{"max_age": 0.5, "max_skew": 0.05, "frozen_after": 1.0, **bounds})


def cause(call, *arguments):
    with pytest.raises(FrameDropped) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and caught.value.cause in FrameDropped.CAUSES
    return caught.value.cause


def feed(c, stamp, data=b"abc", now=None):
    c.check_stamp(stamp, stamp if now is None else now)
    c.accept(stamp, data)


def test_stamps_must_be_within_maximum_age_and_clock_skew():
    c = checks()
    c.check_stamp(NOW - S // 2, NOW)
    c.check_stamp(NOW + S // 20, NOW)
    assert cause(c.check_stamp, NOW - S // 2 - 1, NOW) == "stale"
    assert cause(c.check_stamp, NOW + S // 20 + 1, NOW) == "future"
    assert cause(c.check_stamp, 0, NOW) == "stale"


def test_no_frame_passes_before_the_clock_starts():
    assert cause(checks().check_stamp, 0, 0) == "clock"


def test_repeated_and_reordered_stamps_are_dropped():
    c = checks()
    feed(c, NOW)
    assert cause(c.check_stamp, NOW, NOW) == "duplicate"
    assert cause(c.check_stamp, NOW - S // 10, NOW) == "order"
    feed(c, NOW + 1)


def test_a_backward_clock_jump_starts_a_new_episode():
    c = checks()
    feed(c, NOW)
    feed(c, NOW - 30 * S)
    assert c.episodes == 1
    feed(c, NOW - 29 * S, b"other")
    assert c.episodes == 1


def test_an_unchanged_image_is_frozen_until_it_changes():
    c = checks()
    for k in range(10):
        feed(c, NOW + k * S // 10, bytes([1, 2, 3]))
    c.check_stamp(NOW + S, NOW + S)
    assert cause(c.accept, NOW + S, bytes([1, 2, 3])) == "frozen"
    feed(c, NOW + S + 1, np.array([1, 2, 4], np.uint8))
    feed(c, NOW + S + S // 2, bytes([1, 2, 4]))


def test_the_frozen_check_can_be_switched_off():
    c = checks(frozen_after=0.0)
    for k in range(100):
        feed(c, NOW + k * S // 10)
