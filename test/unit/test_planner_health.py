"""What the planner node knows of its latents, its gate and its own searches."""

import math

import pytest
from jepa_msgs.msg import GateStatus, LatentState

from jepa_ros.nodes.planner import health as planner_health
from jepa_ros.nodes.planner.health import PlannerHealth


@pytest.fixture
def clock(monkeypatch):
    """Steady time that a test sets."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(planner_health, "time", clock)
    return clock


@pytest.fixture
def health(clock):
    return PlannerHealth()


def hear(health, data=(0.0, 1.0), model_id="a"):
    return health.usable(LatentState(model_id=model_id, data=list(data)), "a", (2,), 0.3)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"model_id": "b"}, "latent: expected model 'a', found 'b'"),
        ({"data": (1.0,)}, "latent: expected 2 values, found 1"),
        ({"data": (1.0, math.nan)}, "latent: expected finite values, found NaN or Inf"),
        ({"data": (1.0, -math.inf)}, "latent: expected finite values, found NaN or Inf"),
    ],
)
def test_latents_that_cannot_be_planned_from_are_named_and_counted(health, clock, message, problem):
    assert not hear(health, **message) and health.problem == problem and health.bad_latents == 1
    clock.now += 0.4
    assert health.missing(0.3, 0.2) == problem
    assert hear(health) and health.missing(0.3, 0.2) == ""


def test_latents_that_were_gone_have_to_be_usable_for_a_while(health, clock):
    clock.now += 1.0
    assert health.missing(0.3, 0.2) == "no latent has come for 0.3 s"
    for _ in range(6):
        assert hear(health) and health.settling(0.5)
        clock.now += 0.08
    clock.now += 0.03
    assert hear(health) and not health.settling(0.5)
    hear(health, (math.nan, 0.0))
    assert hear(health) and health.settling(0.5), "one that was not usable begins it anew"


def test_a_search_that_overruns_is_told(health, clock):
    health.search_began = clock.now
    clock.now += 0.25
    assert hear(health) and health.missing(0.3, 0.2) == "a search takes longer than the deadline of 0.2 s"


def test_the_arm_counts_as_held_where_the_gate_does_not_follow_or_is_silent(health, clock):
    health.gate_says(GateStatus(state=GateStatus.TRACKING))
    clock.now += 0.9
    assert health.held_for(True) == 0.0
    health.gate_says(GateStatus(state=GateStatus.HOLDING, text="holding: no plan"))
    clock.now += 0.5
    assert health.held_for(True) == pytest.approx(0.5) and health.gate_text == "holding: no plan"
    health.gate_says(GateStatus(state=GateStatus.TRACKING))
    assert health.held_for(True) == 0.0
    clock.now += 1.5
    assert health.held_for(True) == pytest.approx(1.5) and "arm_gate says nothing" in health.gate_text
    assert health.held_for(False) == 0.0, "nobody wants to move"
