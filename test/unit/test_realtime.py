"""Scheduling of the gate's process: raised where the system grants it, reported where not."""

import os

import pytest

from jepa_ros.nodes.arm_gate import realtime


def test_priority_zero_keeps_normal_scheduling(monkeypatch):
    monkeypatch.setattr(os, "sched_setscheduler", lambda *args: pytest.fail("asked for another scheduling"))
    assert "normal" in realtime.raise_priority(0)


def test_every_thread_gets_the_priority(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *args: asked.append(args))
    assert realtime.raise_priority(50) == "SCHED_FIFO 50"
    assert {thread for thread, _, _ in asked} == {int(t) for t in os.listdir("/proc/self/task")}
    assert all(policy == os.SCHED_FIFO and parameter.sched_priority == 50 for _, policy, parameter in asked)


def test_a_refusal_is_reported_with_the_way_to_allow_it(monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    said = realtime.raise_priority(50)
    assert said.startswith("normal scheduling") and "limits.conf" in said
