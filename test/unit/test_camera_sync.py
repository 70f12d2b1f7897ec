"""Frames of several cameras are put together by stamp: the nearest ones, each set once, in order, and none made up."""

import weakref

import pytest

from jepa_ros.world_model.camera_sync import MAX_FRAMES, MAX_LAG_S, CameraSynchronizer

TOLERANCE = 0.05
PERIOD = 1 / 30


def matcher(*cameras):
    return CameraSynchronizer(cameras or ("frame", "wrist/frame"), TOLERANCE)


def feed(made, messages):
    """The sets of (camera, stamp) messages; a frame's content is its stamp."""
    return [found for camera, stamp in messages for found in made.add(camera, stamp, stamp)]


def arriving(*streams):
    """Messages of (camera, stamps, delay) in the order in which they arrive."""
    messages = [(t + delay, k, camera, t) for k, (camera, stamps, delay) in enumerate(streams) for t in stamps]
    return [(camera, t) for _, _, camera, t in sorted(messages)]


def stamps(count, offset=0.0, period=PERIOD):
    return [100.0 + offset + k * period for k in range(count)]


def test_with_one_camera_each_frame_is_a_set():
    made = matcher("frame")
    assert feed(made, [("frame", 2.0), ("frame", 2.0), ("frame", 1.9), ("frame", 0.0)]) == [
        (2.0,),
        (2.0,),
        (1.9,),
        (0.0,),
    ]
    assert made.incomplete == 0


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.2, -0.2])
def test_simultaneous_frames_form_a_set_in_any_order_of_arrival(delay):
    """A wrist frame of a moment before is near enough, and there earlier; it must not stand in for the right one."""
    times = stamps(30)
    sets = feed(matcher(), arriving(("frame", times, 0.0), ("wrist/frame", times, delay)))
    assert [first for first, _ in sets] == times
    assert all(first == wrist for first, wrist in sets)


@pytest.mark.parametrize("offset", [0.004, 0.015, 0.02, 0.03])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_each_view_is_the_frame_nearest_in_time(offset, delay):
    times, others = stamps(30), stamps(31, offset - PERIOD)
    sets = feed(matcher(), arriving(("frame", times, 0.0), ("wrist/frame", others, delay)))
    assert len(sets) >= 29
    for first, wrist in sets[2:]:  # the time between frames is known from the third on
        assert abs(wrist - first) == pytest.approx(min(abs(t - first) for t in others))


def test_a_set_does_not_wait_for_frames_farther_away():
    made = matcher()
    feed(made, arriving(("frame", stamps(10), 0.0), ("wrist/frame", stamps(10, -0.01), 0.0)))
    feed(made, [("wrist/frame", 100.0 + 10 * PERIOD - 0.01)])
    assert len(made.add("frame", 100.0 + 10 * PERIOD, "new")) == 1


def test_three_cameras_are_in_order_at_the_stamps_of_the_first():
    times = stamps(12)
    made = matcher("frame", "left/frame", "right/frame")
    streams = [("left/frame", stamps(12, 0.002), 0.03), ("right/frame", stamps(12, 0.001), 0.0), ("frame", times, 0.01)]
    sets = feed(made, arriving(*streams))
    assert sets == [(t, pytest.approx(t + 0.002), pytest.approx(t + 0.001)) for t in times]


def test_a_slow_camera_serves_several_frames_of_a_fast_one():
    """The slow one serves several frames of the fast one, where it is near enough; the rest are dropped."""
    made = matcher()
    sets = feed(made, arriving(("frame", stamps(31), 0.0), ("wrist/frame", stamps(8, 0.0, 0.15), 0.0)))
    assert {first for first, _ in sets} == {
        t for t in stamps(31) if min(abs(t - w) for w in stamps(8, 0.0, 0.15)) < 0.05
    }
    assert made.incomplete == 31 - len(sets) > 0
    assert all(abs(wrist - first) <= TOLERANCE for first, wrist in sets)
    assert [first for first, _ in sets] == sorted(first for first, _ in sets)


class Picture:
    """Something that can be seen to be forgotten."""


@pytest.mark.parametrize("silent", ["frame", "wrist/frame"])
def test_a_silent_camera_completes_nothing_and_memory_stays_bounded(silent):
    made, kept = matcher(), weakref.WeakSet()
    (other,) = {"frame", "wrist/frame"} - {silent}
    for t in stamps(2000, period=0.001):
        picture = Picture()
        kept.add(picture)
        assert made.add(other, t, picture) == []
    assert len(kept) <= MAX_FRAMES + 2 and made.apart == {}
    assert (made.incomplete > 1000) == (silent == "wrist/frame")
    sets = feed(made, arriving(("frame", stamps(5, 9.0), 0.0), ("wrist/frame", stamps(5, 9.0), 0.0)))
    assert [first for first, _ in sets] == stamps(5, 9.0), "and it goes on when the camera is back"


@pytest.mark.parametrize("gap", [-3.0, 3.0])
def test_the_offset_of_another_clock_is_reported(gap):
    made = matcher("frame", "left/frame", "wrist/frame")
    times = stamps(60)
    wrist = ("wrist/frame", [t + gap for t in times], -gap)
    assert feed(made, arriving(("frame", times, 0.0), ("left/frame", times, 0.0), wrist)) == []
    assert made.incomplete > 20
    assert made.apart == {"wrist/frame": pytest.approx(gap, abs=MAX_LAG_S + PERIOD)}
    assert len(feed(made, [(camera, 500.0) for camera in ("frame", "left/frame", "wrist/frame")])) == 1
    assert made.apart == {}, "forgotten once they come together again"


def test_repeated_and_out_of_order_frames_are_dropped():
    made = matcher()
    messages = arriving(("frame", stamps(10), 0.0), ("wrist/frame", stamps(10), 0.0))
    doubled = [m for m in messages for _ in range(2)]
    disordered = [x for k, m in enumerate(doubled) for x in ([m, (m[0], m[1] - 0.02)] if k % 5 == 0 else [m])]
    assert feed(made, disordered) == [(t, t) for t in stamps(10)]


@pytest.mark.parametrize("order", [("frame", "wrist/frame"), ("wrist/frame", "frame")])
def test_a_jump_back_in_time_starts_over_without_mixing(order):
    made = matcher()
    feed(made, arriving(("frame", stamps(30), 0.0), ("wrist/frame", stamps(30), 0.0)))
    back = [50.0 + k * PERIOD for k in range(10)]
    sets = feed(made, [(camera, t) for t in back for camera in order])
    assert sets[-9:] == [(t, t) for t in back[1:]]
    assert all(first == wrist for first, wrist in sets)


def test_a_late_frame_of_the_old_episode_has_no_lasting_effect():
    made = matcher()
    feed(made, arriving(("frame", stamps(30), 0.0), ("wrist/frame", stamps(30), 0.0)))
    sets = feed(made, [("frame", 50.0), ("wrist/frame", 101.0)])
    sets += feed(made, [(camera, 50.0 + k * PERIOD) for k in range(1, 10) for camera in ("wrist/frame", "frame")])
    assert sets == [(50.0 + k * PERIOD,) * 2 for k in range(1, 10)]


def test_a_jump_ahead_in_time_continues_from_there():
    made = matcher()
    times = [*stamps(10), *stamps(10, 60.0)]
    assert feed(made, arriving(("frame", times, 0.0), ("wrist/frame", times, 0.0))) == [(t, t) for t in times]


def test_a_camera_that_lags_too_far_is_not_waited_for():
    times = stamps(60)
    made = matcher()
    sets = feed(made, arriving(("frame", times, 0.0), ("wrist/frame", times, MAX_LAG_S + 0.2)))
    assert made.incomplete > 0 and all(first == wrist for first, wrist in sets)


def test_clear_drops_all_frames():
    made = matcher()
    made.add("frame", 1.0, 0)
    made.clear()
    assert made.add("wrist/frame", 1.0, 0) == [] and made.add("frame", 0.9, "a") == []
