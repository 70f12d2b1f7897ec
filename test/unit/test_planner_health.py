"""What the planner node knows of its latents, its gate and its own searches."""

import math

import pytest
from jepa_msgs.msg import GateStatus, LatentState

from jepa_ros.nodes.planner import health as planner_health
from jepa_ros.nodes.planner.health import GATE_SILENT_AFTER, PlannerHealth
from jepa_ros.planning.codes import PlannerCode


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
    return health.check_latent(LatentState(model_id=model_id, data=list(data)), "a", (2,), 0.3)


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ({"model_id": "b"}, PlannerCode.LATENT_OF_OTHER_MODEL, "latent: expected model 'a', found 'b'"),
        ({"data": (1.0,)}, PlannerCode.LATENT_INVALID, "latent: expected 2 values, found 1"),
        ({"data": (1.0, math.nan)}, PlannerCode.LATENT_INVALID, "latent: expected finite values, found NaN or Inf"),
        ({"data": (1.0, -math.inf)}, PlannerCode.LATENT_INVALID, "latent: expected finite values, found NaN or Inf"),
    ],
)
def test_invalid_latents_are_named_and_counted(health, clock, message, code, text):
    assert not hear(health, **message) and health.latent_fault == (code, text) and health.bad_latents == 1
    clock.now += 0.4
    assert health.find_fault(0.3, 0.2) == (code, text)
    assert hear(health) and not health.find_fault(0.3, 0.2)


def test_after_a_latent_dropout_latents_must_be_valid_for_a_while(health, clock):
    clock.now += 1.0
    assert health.find_fault(0.3, 0.2) == (PlannerCode.NO_LATENT, "no latent for 0.3 s")
    for _ in range(6):
        assert hear(health) and health.is_recovering(0.5)
        clock.now += 0.08
    clock.now += 0.03
    assert hear(health) and not health.is_recovering(0.5)
    hear(health, (math.nan, 0.0))
    assert hear(health) and health.is_recovering(0.5), "one that was not usable begins it anew"


def test_a_search_overrun_is_reported(health, clock):
    health.search_began = clock.now
    clock.now += 0.25
    assert hear(health) and health.find_fault(0.3, 0.2).code == PlannerCode.SEARCH_TIMEOUT


def test_the_arm_counts_as_held_if_the_gate_holds_or_is_silent(health, clock):
    health.receive_gate_status(GateStatus(state=GateStatus.TRACKING))
    clock.now += 0.9
    assert health.held_for(True) == 0.0
    health.receive_gate_status(GateStatus(state=GateStatus.HOLDING, text="holding: no plan"))
    clock.now += 0.5
    assert health.held_for(True) == pytest.approx(0.5) and health.gate_cause == (
        PlannerCode.GATE_HOLDING,
        "holding: no plan",
    )
    health.receive_gate_status(GateStatus(state=GateStatus.TRACKING))
    assert health.held_for(True) == 0.0
    clock.now += 1.5
    assert health.held_for(True) == pytest.approx(1.5) and health.gate_cause.code == PlannerCode.GATE_SILENT
    assert health.held_for(False) == 0.0, "nobody wants to move"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (GateStatus.INACTIVE, PlannerCode.GATE_INACTIVE),
        (GateStatus.LATCHED, PlannerCode.GATE_LATCHED),
        (GateStatus.HOLDING, PlannerCode.NONE),
        (GateStatus.STOPPING, PlannerCode.NONE),
        (GateStatus.TRACKING, PlannerCode.NONE),
    ],
)
def test_a_latched_inactive_or_silent_gate_refuses_goals(health, clock, state, code):
    assert not health.find_gate_refusal(), "unknown yet"
    health.receive_gate_status(GateStatus(state=state, text="why"))
    refusal = health.find_gate_refusal()
    assert refusal.code == code and ("why" in refusal.text) == bool(refusal)
    clock.now += GATE_SILENT_AFTER + 0.1
    assert health.find_gate_refusal().code == PlannerCode.GATE_SILENT


@pytest.mark.parametrize("code", [GateStatus.CONTROLLER_INACTIVE, GateStatus.CONTROLLER_SLOWED])
def test_goals_are_refused_while_the_controllers_would_not_follow(health, code):
    health.receive_gate_status(GateStatus(state=GateStatus.HOLDING, code=code, text="controller arm is paused"))
    refusal = health.find_gate_refusal()
    assert refusal.code == PlannerCode.GATE_HOLDING and "controller arm is paused" in refusal.text
