"""Latencies are joined from what each message says and when it was written."""

import pytest

from jepa_ros.demo.record import (
    PlanSeen,
    count_in_window,
    first_use,
    missed,
    plan_uses,
    replan_rate,
)


def plan(number, source, received=None):
    received = source + 0.1 if received is None else received
    return PlanSeen(number, source, received - 0.001, received)


@pytest.mark.parametrize("order", [-0.0004, 0.0004])
def test_a_window_belongs_to_the_status_of_its_tick_in_either_order(order):
    windows = [1.000, 1.050, 1.062, 1.112]
    statuses = [(1.062 + order, 7), (1.112 + order, 7)]
    assert first_use(statuses, windows) == {7: 1.062}


def test_only_the_first_status_of_each_plan_counts():
    assert first_use([(3.0, 2), (1.0, 1), (2.0, 1), (0.5, 0)], [0.5, 1.0, 2.0, 3.0]) == {1: 1.0, 2: 3.0}


def test_a_plan_without_a_window_in_its_tick_is_ignored():
    assert first_use([(1.0, 1)], [0.95, 1.05]) == {}
    assert first_use([(1.0, 1)], []) == {}


def test_latency_counts_from_the_frame_and_gate_latency_from_the_plan():
    [use] = plan_uses([plan(1, 10.0, 10.095), plan(2, 10.2)], [(10.1, 1)], [10.1004, 10.05])
    assert use.plan_id == 1
    assert use.latency == pytest.approx(0.1004) and use.gate == pytest.approx(0.0064)


def test_a_deadline_miss_is_a_late_plan_or_one_without_an_iteration():
    plans = [plan(1, 0.0, 0.26), plan(2, 1.0, 1.28), plan(3, 2.0, 2.1), plan(4, 3.0, 3.1)]
    assert missed(plans, {}, {1: 5, 2: 5, 3: 0}, deadline=0.2, camera_period=1 / 15) == [2, 3]


def test_a_plan_followed_in_time_is_no_miss_even_if_received_later_here():
    assert missed([plan(1, 0.0, 0.3)], {1: 0.15}, {}, deadline=0.2, camera_period=1 / 15) == []


def test_the_replan_rate_excludes_the_time_between_goals():
    assert replan_rate([[0.0, 0.25, 0.5], [100.0, 100.25]]) == pytest.approx(4.0)
    assert replan_rate([[1.0], []]) is None
    assert replan_rate([]) is None


def test_frames_are_counted_by_the_sequence_numbers_of_the_publisher():
    received = [(0, 11), (10, 12), (30, 14), (40, 15)]  # number 13 was lost on its way here only
    assert count_in_window(received, 10, 40) == 4
    assert count_in_window(received, 100, 200) == 0
