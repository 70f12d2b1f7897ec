"""What plans are judged by: distances in their own units, costs that can be added, and what cannot be asked for."""

import numpy as np
import pytest
import torch

from helpers import sim_arm, small_models
from jepa_ros.errors import InputError
from jepa_ros.planning.goal import Goal, GoalMaker, Objective, Outcome
from jepa_ros.world_model.heads import Probe

JOINTS = tuple(sim_arm.robot().joints)
SPACE = sim_arm.space()
XY = SPACE.workspace.mean(0)


def checkpoint(probes=()):
    made = small_models.knowing(JOINTS)
    made.probes.update({p.name: p for p in probes})
    return made


def tool_probe(error=0.004):
    """Reads the tool off the latents of tiny's world, exactly."""
    return Probe("tool", torch.vstack([small_models.SCALE * torch.eye(2), torch.zeros(1, 2)]), error, (2,))


def outcome(places, joints=0.0, seen=None):
    """Of S candidates that lead the tool to places (S, H, 2) m."""
    places = torch.as_tensor(np.array(places), dtype=torch.float32)
    latents = (
        places / small_models.SCALE
        if seen is None
        else torch.as_tensor(np.array(seen), dtype=torch.float32) / small_models.SCALE
    )
    return Outcome(latents, torch.full((*places.shape[:2], 14), joints), places)


@pytest.fixture
def maker():
    return GoalMaker(checkpoint([tool_probe()]), SPACE)


def test_the_distance_of_a_tool_position(maker):
    term = maker.tool([*XY, SPACE.height])
    far = outcome([[XY + [0.03, 0.04], XY]])
    np.testing.assert_allclose(term.distance(far), [[0.05, 0.0]], atol=1e-6)
    assert term.unit == "m" and Goal((term,)).within(far).tolist() == [[False, True]]


def test_the_distance_of_a_posture_is_the_mean_over_its_joints(maker):
    term = maker.posture(JOINTS[:2], [0.4, 0.0])
    np.testing.assert_allclose(term.distance(outcome([[XY]])), [[0.4 / np.sqrt(2)]], rtol=1e-5)
    assert term.unit == "rad"


def test_the_object_position_is_read_by_its_probe(maker):
    term = maker.object("tool", [*(XY + [0.0, 0.1]), 0.0])
    np.testing.assert_allclose(term.distance(outcome([[XY]])), [[0.1]], rtol=1e-4)
    assert term.tolerance == pytest.approx(0.008)


def test_the_joint_probe_is_not_an_object_probe():
    probes = [tool_probe(), Probe("joints", torch.zeros(3, 7), 0.01, (2,))]
    with pytest.raises(
        InputError, match=r"object 'joints': the model has no probe of that name \(it has probes for tool\)"
    ):
        GoalMaker(checkpoint(probes), SPACE).object("joints", [0, 0, 0])


def test_l1_and_l2_latent_distances_are_zero_at_the_goal():
    goal = small_models.latent_of(XY)
    costs = {}
    for metric in ("l2", "l1"):
        term = GoalMaker(checkpoint(), SPACE, metric).latent(goal)
        costs[metric] = term.cost(outcome([[XY + [0.05, 0.0], XY]])).flatten()
        assert costs[metric][1] == 0.0 and term.distance(outcome([[XY]])) == 0.0
    assert costs["l2"][0] == pytest.approx(0.5) and costs["l1"][0] == pytest.approx(0.5)


def test_a_learned_distance_uses_the_predicted_state():
    class Ticks(torch.nn.Module):
        def forward(self, latent, goal, states):
            assert latent.shape == goal.shape == (6, 2) and states.shape == (6, 14)
            return 100.0 * (latent - goal).norm(dim=1)

    made = small_models.knowing(JOINTS)
    object.__setattr__(made, "reachability", Ticks())
    term = GoalMaker(made, SPACE, "reachability").latent(small_models.latent_of(XY))
    cost = term.cost(outcome(np.tile(XY + [0.1, 0.0], (2, 3, 1))))
    np.testing.assert_allclose(cost, 100.0 * 2.0 / 20 + 2.0, rtol=1e-4)


def test_a_goal_of_several_terms_weighs_them_and_is_reached_when_all_are(maker):
    there, other = maker.tool([*XY, SPACE.height]), maker.latent(small_models.latent_of(XY + [0.06, 0.0]), weight=3.0)
    goal = Goal((there, other))
    middle = outcome([[XY], [XY + [0.06, 0.0]]])
    np.testing.assert_allclose(goal.cost(middle)[:, 0], [3.0 * 0.72, (0.06 / 0.15) ** 2], rtol=1e-3)
    assert not goal.within(middle).any() and goal.latent is not None and goal.needs_states
    assert goal.distance(middle)[1, 0] == pytest.approx(0.06)


def test_intermediate_steps_are_weighted_less_than_the_last():
    maker = GoalMaker(checkpoint(), SPACE)
    goal, still = Goal((maker.latent(small_models.latent_of(XY)),)), torch.zeros(2, 8, 2)
    late, early = [[XY + 0.05] * 3 + [XY]], [[XY + 0.05] + [XY] * 3]
    costs = Objective(along=0.3, effort=0.0)(goal, outcome(np.concatenate([late, early])), still)
    np.testing.assert_allclose(costs, [0.3 * 3, 0.3], rtol=1e-4)


def test_effort_and_jitter_are_penalised():
    maker = GoalMaker(checkpoint(), SPACE)
    goal = Goal((maker.latent(small_models.latent_of(XY)),))
    steady, shaking = torch.ones(1, 8, 2), torch.tensor([1.0, -1.0]).repeat(4)[None, :, None].expand(1, 8, 2)
    both, there = torch.cat([steady, shaking]), outcome([[XY]] * 2)
    effort = Objective(effort=0.1)(goal, there, both)
    assert effort[0] == effort[1] == pytest.approx(0.1)
    smooth = Objective(effort=0.0, smoothness=1.0)(goal, there, both)
    assert smooth[0] == 0.0 and smooth[1] == pytest.approx(4.0)


def test_inconsistency_of_the_model_is_penalised():
    maker = GoalMaker(checkpoint(), SPACE)
    goal, objective = Goal((maker.tool([*XY, SPACE.height]),)), Objective(uncertainty=2.0, tool_probe=tool_probe())
    agreed, apart = outcome([[XY]]), outcome([[XY]], seen=[[XY + [0.11, 0.0]]])
    assert objective(goal, agreed, torch.zeros(1, 4, 2)) == pytest.approx(0.0, abs=1e-6)
    assert objective(goal, apart, torch.zeros(1, 4, 2)) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: m.tool([*XY, 0.1]), "pose: expected z = 0.455 m, .* found 0.100 m"),
        (lambda m: m.tool([1.0, 1.0, SPACE.height]), r"pose: \[1.0, 1.0\] m lies outside the workspace"),
        (lambda m: m.tool([np.nan, 0.0, 0.4]), "pose: expected 3 finite numbers"),
        (lambda m: m.posture(("elbow",), [0.0]), r"joints: expected some of .*, found \['elbow'\]"),
        (lambda m: m.posture((), []), "joints: expected some of .*, found none"),
        (lambda m: m.posture(JOINTS[:2], [0.0]), r"joints: expected 2 finite numbers, found \[0.0\]"),
        (lambda m: m.object("puck", [0, 0, 0]), r"object 'puck': the model has no probe of that name"),
        (lambda m: Goal(()), "goal: no terms"),
        (lambda m: Goal((m.latent(torch.zeros(2), weight=-1.0),)), "goal: expected finite positive weights, found -1"),
        (
            lambda m: GoalMaker(checkpoint(), SPACE, "cosine"),
            "metric: expected one of l2, l1, reachability, found 'cos",
        ),
        (lambda m: GoalMaker(checkpoint(), SPACE, "reachability"), "metric: reachability needs a model"),
    ],
)
def test_invalid_goals_are_reported(maker, ask, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(maker)
