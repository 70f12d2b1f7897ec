"""Reaching step by step, with a model that knows its world: plans join without a jump, and end at the goal."""

import numpy as np
import pytest
import torch

from helpers import sim_arm, small_models
from helpers.plan_follower import Followed
from jepa_ros.planning.receding_horizon import NoPlan, PlanningSettings, PlanStep, RecedingHorizonController

JOINTS = tuple(sim_arm.robot().joints)
XY = np.array([0.12, -0.30])
T0 = 1_700_000_000.0
CAMERA, STATES = 1 / 15, 0.02


class Follower(Followed):
    """Frames and joint states reach the controller at once."""

    def __init__(self, settings=None, xy=XY):
        controller = RecedingHorizonController(
            small_models.knowing(JOINTS), sim_arm.space(), settings or PlanningSettings(budget=np.inf)
        )
        super().__init__(controller, sim_arm.space().inverse_kinematics(xy), T0)
        self.due = {"frame": T0, "state": T0}

    def run(self, seconds):
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            if self.now >= self.due["state"] - 1e-9:
                self.due["state"] += STATES
                q, qd, _ = self.reference(self.now)
                self.controller.add_state(self.now, np.concatenate([q, qd]))
            if self.now >= self.due["frame"] - 1e-9:
                self.due["frame"] += CAMERA
                self.controller.add_latent(self.now, small_models.latent_of(self.tool()))
        return self


@pytest.fixture
def follower():
    made = Follower().run(0.3)
    made.controller.set_goal(small_models.latent_of(XY + [0.12, 0.05]))
    return made


def test_the_reason_for_no_plan_is_given():
    controller = RecedingHorizonController(small_models.knowing(JOINTS), sim_arm.space())
    reasons = [controller.plan_step(T0)]
    controller.set_goal(small_models.latent_of(XY))
    reasons.append(controller.plan_step(T0))
    controller.add_latent(T0, small_models.latent_of(XY))
    reasons.append(controller.plan_step(T0))
    controller.add_state(T0 - 5.0, np.zeros(14))
    reasons.append(controller.plan_step(T0))
    texts = ["no goal", "no latent yet", "no joint states at the frame's time", "no joint states at the frame's time"]
    assert reasons == [NoPlan(text) for text in texts]


def test_consecutive_plans_are_continuous(follower):
    steps = []
    for _ in range(8):
        steps.append(follower.step())  # asserts the join in position, velocity and acceleration
        follower.run(0.2)
    assert all(s.splice_error < 1e-9 for s in steps)
    assert [s.plan_id for s in steps] == list(range(1, 9))
    speeds = [np.linalg.norm(s.trajectory.velocities[0]) for s in steps[1:5]]
    assert min(speeds) > 0.05, "the joins are in motion"


def test_plans_start_on_the_tick_grid_after_the_lead_time_and_end_at_rest(follower):
    follower.run(0.037)
    step = follower.step()
    lead = follower.controller.settings.lead
    assert lead <= step.start - follower.now < lead + 0.1 + 1e-6
    assert step.start * 10 == pytest.approx(round(step.start * 10), abs=1e-4)
    assert step.source_stamp == follower.controller.observations.latents.newest <= follower.now
    assert not step.trajectory.velocities[-1].any() and not step.trajectory.accelerations[-1].any()
    assert step.valid_until >= step.start + step.trajectory.duration
    ticks = follower.controller.settings.plan_ticks
    assert ticks * 0.1 <= step.trajectory.duration <= ticks * 0.1 + 0.4


def test_the_goal_is_reached_only_after_the_dwell_time(follower):
    controller, tolerance = follower.controller, follower.controller.config.distance.tolerance
    within, reached = None, None
    for _ in range(30):
        if not controller.is_reached:
            follower.step()
        for _ in range(3):
            follower.run(CAMERA)
            if within is None and controller.distance <= tolerance:
                within = controller.observations.latents.newest
            if reached is None and controller.is_reached:
                reached = controller.observations.latents.newest
        if reached:
            break
    assert reached, f"not reached, but {controller.distance} away"
    dwell = controller.settings.dwell
    assert dwell - 1e-6 <= reached - within <= dwell + 2 * CAMERA
    np.testing.assert_allclose(follower.tool(), XY + [0.12, 0.05], atol=0.02)


def test_leaving_the_goal_restarts_the_dwell_time():
    controller = RecedingHorizonController(small_models.knowing(JOINTS), sim_arm.space())
    controller.set_goal(torch.zeros(2))
    near, far = torch.full((2,), 0.1), torch.full((2,), 1.0)
    states = []
    for k, latent in enumerate([near] * 5 + [far] + [near] * 8):
        controller.add_latent(T0 + 0.1 * k, latent)
        states.append(controller.is_reached)
    assert states.index(True) == 12 and controller.settings.dwell == 0.6
    controller.set_goal(torch.zeros(2))
    assert not controller.is_reached


def test_a_stop_plan_brings_the_arm_to_rest(follower):
    assert follower.controller.plan_stop(follower.now) is None, "nothing is promised"
    follower.step()
    follower.run(0.6)
    q, qd, _ = follower.reference(follower.now)
    assert np.abs(qd).max() > 0.05, "it moves"
    stop = follower.controller.plan_stop(follower.now)
    assert stop.motion is None and follower.now < stop.start < follower.now + 0.2
    follower.take(stop)
    assert stop.trajectory.duration <= 0.6 and not stop.trajectory.velocities[-1].any()
    follower.run(stop.start - follower.now + stop.trajectory.duration + 0.1)
    at = follower.tool()
    assert follower.controller.plan_stop(follower.now) is None, "it is at rest"
    follower.run(0.5)
    np.testing.assert_array_equal(follower.tool(), at)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_latents_with_nan_or_inf_are_ignored(follower, value):
    controller = follower.controller
    before = controller.observations.latents.newest, controller.distance
    controller.add_latent(follower.now + 0.01, torch.tensor([value, 0.0]))
    assert (controller.observations.latents.newest, controller.distance) == before
    follower.step()


def test_after_a_refusal_plans_start_from_the_measured_joints(follower):
    follower.step()
    follower.controller.drop_reference()
    follower.plans.clear()  # the gate kept holding
    follower.run(0.3)
    step = follower.step()
    np.testing.assert_allclose(step.trajectory.positions[0], follower.rest, atol=1e-9)


def test_plans_start_where_the_arm_came_to_rest(follower):
    follower.step()
    follower.run(2.0)
    follower.plans.clear()
    follower.rest = follower.space.inverse_kinematics(XY + [0.05, 0.06])
    follower.run(0.3)
    step = follower.step()
    np.testing.assert_allclose(step.trajectory.positions[0], follower.rest, atol=1e-9)


def test_a_backward_time_jump_starts_a_new_episode(follower):
    follower.step()
    assert follower.controller.reference
    follower.controller.add_latent(T0 - 100.0, small_models.latent_of(XY))
    assert not follower.controller.reference and follower.controller.goal is not None
    assert follower.controller.plan_step(T0 - 100.0) == NoPlan("no joint states at the frame's time")
    follower.controller.add_state(T0 - 100.0, np.concatenate([follower.rest, np.zeros(7)]))
    assert isinstance(follower.controller.plan_step(T0 - 100.0), PlanStep)


def test_without_a_goal_there_is_no_plan(follower):
    follower.controller.clear_goal()
    assert follower.controller.plan_step(follower.now) == NoPlan("no goal") and not follower.controller.is_reached
