"""Guardrails: what they forbid, what they let back in, and that the fast field and the exact check agree."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.collision.clearance import SAMPLE_PERIOD, WORKSPACE_TOLERANCE, Box
from jepa_ros.robot.collision.self_collision import SelfCollision
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.trajectory import JointTrajectory

SEEDS = st.integers(0, 2**32 - 1)
STILL = np.zeros(7)
ARM = tuple(sim_arm.robot().joints)
HOME = np.array([sim_arm.robot().home[j] for j in ARM])
LOW, HIGH = np.array([0.18, -0.36, 0.3]), np.array([0.24, -0.26, 0.6])
PILLAR = Box("pillar", LOW, HIGH)


@cache
def collision():
    return SelfCollision(sim_arm.scene().urdf, ARM, home=HOME)


@cache
def rails():
    """Those of the robot as it is configured."""
    return Guardrails.from_robot(sim_arm.robot(), sim_arm.scene().urdf, sim_arm.space(), sim_arm.limits())


@cache
def small_space():
    """The arm's action space on a workspace so small that its field is made at once."""
    corners = [(0.20, -0.30), (0.24, -0.30), (0.24, -0.26)]
    config = sim_arm.robot().action_space.model_copy(update={"workspace": corners})
    return PlanarVelocity(sim_arm.robot().model_copy(update={"action_space": config}), sim_arm.space().kinematics)


def boxed(*boxes, margin=0.02):
    return Guardrails(sim_arm.space(), None, None, boxes, margin)


def straight(start, end, count=21):
    """A path (1, count, 2) between two places."""
    return np.linspace(start, end, count)[None]


def plan(q, knots):
    space = sim_arm.space()
    constrained = space.constrain(space.tool_coordinates(q), np.zeros(2), knots)
    return space.to_trajectory(q, STILL, STILL, constrained), space.make_path(q, STILL, constrained)


def wild_plan(rng):
    knots = np.repeat(rng.uniform(-2, 2, (3, 2)), 5, axis=0)
    return plan(sim_arm.space().inverse_kinematics(sim_arm.space().sample(rng)), knots)


def joints_along(start, end, seconds=1.5):
    """A trajectory with the tool from one place to another, as the posture there has it."""
    space, points = sim_arm.space(), np.linspace(start, end, 16)
    positions = [space.inverse_kinematics(points[0])]
    for xy in points[1:]:
        positions.append(space.inverse_kinematics(xy, positions[-1]))
    return JointTrajectory(ARM, np.linspace(0, seconds, len(points)), np.array(positions))


# ---------------------------------------------------------------------------------------- boxes in the plane


def test_the_clearance_of_a_box_is_the_distance_minus_the_margin():
    xy = np.array([[[0.10, -0.30], [0.21, -0.20]], [[0.21, -0.31], [0.27, -0.40]]])
    expected = [[0.08, 0.06], [-0.03, 0.05]]  # the last one is nearest to a corner
    np.testing.assert_allclose(boxed(PILLAR).clearance(xy), np.array(expected) - 0.02, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_distance_to_a_box_is_that_to_its_nearest_point(seed):
    rng = np.random.default_rng(seed)
    point = rng.uniform(-0.3, 0.3, 3) + 0.5 * (LOW + HIGH)
    found = PILLAR.distance(*point)
    if ((point > LOW) & (point < HIGH)).all():
        assert found == pytest.approx(-np.minimum(point - LOW, HIGH - point).min())
    else:
        assert found == pytest.approx(np.linalg.norm(point - np.clip(point, LOW, HIGH)))


def test_the_clearance_is_that_of_the_nearest_box():
    other = Box("other", LOW + [0.1, 0, 0], HIGH + [0.1, 0, 0])
    xy = np.array([0.26, -0.3])
    assert boxed(PILLAR, other, margin=0.0).clearance(xy) == pytest.approx(0.02)


def test_the_tool_may_pass_below_a_box_above_its_plane():
    height = sim_arm.space().height
    above = Box("lamp", np.array([*LOW[:2], height + 0.03]), np.array([*HIGH[:2], 1.0]))
    assert boxed(above).clearance(np.array([0.21, -0.3])) == pytest.approx(0.01)
    assert boxed(above, margin=0.04).clearance(np.array([0.21, -0.3])) == pytest.approx(-0.01)


def test_a_path_through_a_box_is_forbidden():
    through, around = straight([0.10, -0.3], [0.30, -0.3]), straight([0.10, -0.2], [0.30, -0.2])
    np.testing.assert_array_equal(boxed(PILLAR).feasible(np.concatenate([through, around])), [False, True])


def test_the_margin_is_kept():
    beside = straight([0.10, -0.25], [0.30, -0.25])  # 1 cm from the box
    assert not boxed(PILLAR, margin=0.02).feasible(beside)[0]
    assert boxed(PILLAR, margin=0.005).feasible(beside)[0]


def test_from_a_forbidden_start_only_motion_out_is_allowed():
    out, deeper = straight([0.19, -0.3], [0.10, -0.3]), straight([0.19, -0.3], [0.21, -0.3])
    still, across = straight([0.19, -0.3], [0.19, -0.3]), straight([0.19, -0.3], [0.30, -0.3])
    paths = np.concatenate([out, deeper, still, across])
    np.testing.assert_array_equal(boxed(PILLAR).feasible(paths), [True, False, True, False])


def test_the_price_rises_towards_a_box_and_is_zero_far_away():
    paths = np.array([[[x, -0.3]] for x in (0.05, 0.14, 0.15, 0.16, 0.18, 0.20)])
    price = boxed(PILLAR).price(paths)
    assert price[0] == 0 and (np.diff(price[1:]) > 0).all()
    assert boxed(PILLAR).price(np.array([[[0.16, -0.3]]])) == pytest.approx(1.0)  # where the margin ends
    steps = boxed(PILLAR).price(np.stack([np.linspace(0.05, 0.17, 500), np.full(500, -0.3)], 1)[:, None])
    assert np.abs(np.diff(steps)).max() < 0.03, "not smooth"


# ---------------------------------------------------------------------------------------- the robot itself


def test_the_workspace_is_free_of_self_collision_and_has_no_penalty():
    rng = np.random.default_rng(0)
    paths = np.array([[sim_arm.space().sample(rng)] for _ in range(300)])
    assert rails().clearance(paths).min() > 0.003
    assert rails().feasible(paths).all() and not rails().price(paths).any()


def test_the_clearance_field_equals_the_exact_distance():
    rng = np.random.default_rng(1)
    for _ in range(20):
        xy = sim_arm.space().sample(rng)
        exact = collision().distance(sim_arm.space().inverse_kinematics(xy)) - rails().margin
        assert rails().clearance(xy) == pytest.approx(exact, abs=3e-3)


def test_positions_beyond_the_joint_limits_have_no_clearance():
    elbow = ARM.index("openarm_right_joint4")
    far = sim_arm.space().inverse_kinematics(np.array([0.30, -0.20]))[elbow]
    near = sim_arm.space().inverse_kinematics(np.array([0.12, -0.25]))[elbow]
    lower = sim_arm.limits().lower.copy()
    lower[elbow] = 0.5 * (far + near)
    narrow = Guardrails(sim_arm.space(), replace(sim_arm.limits(), lower=lower), None)
    clearance = narrow.clearance(np.array([[0.30, -0.20], [0.12, -0.25]]))
    assert clearance[0] < 0 < clearance[1]
    text = narrow.check(joints_along([0.12, -0.25], [0.30, -0.20]))
    assert text.startswith(f"joint openarm_right_joint4 goes {lower[elbow] - far:.3f} rad beyond its lower limit of")
    assert text.endswith("at 1.50 s")
    assert narrow.check(joints_along([0.30, -0.20], [0.12, -0.25])) == "", "it moves inward"
    assert narrow.check(joints_along([0.30, -0.20], [0.31, -0.20])) != "", "it moves outward"


def test_positions_blocked_by_the_other_arm_have_no_clearance():
    across = {"openarm_left_joint4": 1.571, "openarm_left_joint3": 0.55}
    own = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME, others=across)
    clearance = Guardrails(sim_arm.space(), None, own, margin=0.005).clearance(np.array([[0.28, -0.14], [0.15, -0.16]]))
    assert clearance[0] < 0 < clearance[1]


# ---------------------------------------------------------------------------------------- the exact check


def test_ordinary_plans_pass_the_exact_check():
    rng = np.random.default_rng(2)
    assert [rails().check(wild_plan(rng)[0]) for _ in range(25)] == [""] * 25


def test_the_exact_check_names_the_box():
    guard = boxed(PILLAR)
    text = guard.check(joints_along([0.10, -0.30], [0.20, -0.30]))
    assert text == "the tool comes 0.020 m into the keep-out box 'pillar' at 1.50 s; the margin is 0.020 m"
    text = guard.check(joints_along([0.10, -0.30], [0.165, -0.30]))
    assert text == "the tool comes 0.015 m near the keep-out box 'pillar' at 1.50 s; the margin is 0.020 m"
    assert guard.check(joints_along([0.10, -0.30], [0.155, -0.30])) == ""
    assert guard.check(joints_along([0.19, -0.30], [0.10, -0.30])) == "", "it moves out of it"


def test_the_exact_check_names_the_pair_of_links():
    own = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME)
    guard = Guardrails(sim_arm.space(), sim_arm.limits(), own, margin=0.01)
    way = joints_along([0.12, -0.36], [0.22, -0.16])
    assert guard.check(way) == ""
    own.set_joints({"openarm_left_joint4": 1.571, "openarm_left_joint3": 0.8})
    text = guard.check(way)
    assert text.startswith("openarm_left_ee_") and " and openarm_right_" in text
    assert " overlap by 0.0" in text and text.endswith("s; the margin is 0.010 m")


def test_the_exact_check_names_how_far_the_tool_leaves_the_workspace():
    space = sim_arm.space()
    middle, outward = space.workspace[4:6].mean(0), space.normals[4]
    guard = Guardrails(space, None, None)
    trajectory = joints_along(middle - 0.05 * outward, middle - 0.01 * outward)
    assert guard.check(trajectory) == ""
    # Beyond what plans may need to turn: the same motion gone on for as long again.
    q0, q1 = trajectory.positions[0], trajectory.positions[-1]
    far = JointTrajectory(ARM, np.array([0.0, 1.0]), np.array([q0, q0 + 2 * (q1 - q0)]))
    assert (space.normals @ space.tool_coordinates(far.positions[-1]) - space.offsets).max() > WORKSPACE_TOLERANCE
    assert guard.check(far).startswith("the tool goes 0.0") and "m out of the workspace at 1.00 s" in guard.check(far)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_constraints_that_are_off_forbid_nothing(seed):
    """It finds what looking at every sample finds, however thin the box is."""
    rng = np.random.default_rng(seed)
    trajectory, path = wild_plan(rng)
    low = np.array([*(path.sample(np.array([rng.uniform(0, 1.5)]))[0][0] + rng.normal(size=2) * 0.01), 0.3])
    guard = boxed(Box("sheet", low, low + [0.002, 0.03, 0.3]), margin=0.003)
    q = trajectory.sample(
        np.linspace(0, trajectory.duration, int(np.ceil(trajectory.duration / SAMPLE_PERIOD - 1e-6)) + 1)
    )[0]
    tool = np.array([sim_arm.space().kinematics.forward(row)[0] for row in q])
    near = guard.boxes[0].distance(*tool.T)
    forbidden = (near < min(guard.margin, near[0] - 1e-4)).any()
    assert bool(guard.check(trajectory)) == forbidden
    if forbidden:
        worst = f"{abs(near.min()):.3f} m {'near' if near.min() >= 0 else 'into'} the keep-out box 'sheet'"
        assert worst in guard.check(trajectory)


def test_paths_that_the_field_allows_pass_the_exact_check():
    guard = Guardrails(sim_arm.space(), sim_arm.limits(), collision(), [PILLAR], 0.015)
    rng, verdicts = np.random.default_rng(3), []
    for _ in range(60):
        trajectory, path = wild_plan(rng)
        points = path.sample(np.linspace(0, path.duration, 31))[0]
        if guard.clearance(points[0]) > 0:
            verdicts.append((bool(guard.feasible(points[None])[0]), guard.check(trajectory)))
    exact = [text for fast, text in verdicts if fast]
    assert len(exact) > 15 and sum(text != "" for text in exact) <= 1
    refused = [text for fast, text in verdicts if not fast]
    assert len(refused) > 5 and sum(text == "" for text in refused) <= 2


# ---------------------------------------------------------------------------------------- what cannot be used


def test_a_margin_larger_than_the_home_clearance_is_refused_with_the_pair():
    with pytest.raises(InputError, match=r"openarm_right_base_link and .*link3 at home, found 0.0"):
        Guardrails(sim_arm.space(), None, collision(), margin=0.05)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Box("b", LOW, LOW), "keep-out box 'b': expected low < high on every axis, found .0.18"),
        (lambda: Box("b", LOW[:2], HIGH[:2]), "keep-out box 'b': expected low < high on every axis"),
        (lambda: Box("b", LOW, HIGH * np.nan), "keep-out box 'b': expected low < high on every axis"),
        (lambda: boxed(margin=-0.1), "guardrails: margin: expected .* at least 0 m, found -0.1"),
        (
            lambda: Guardrails(sim_arm.space(), replace(sim_arm.limits(), names=ARM[::-1]), None),
            "joint limits: expected the joints .'openarm_right_joint1'.* found .'openarm_right_joint7'",
        ),
        (
            lambda: boxed().check(JointTrajectory(ARM[::-1], np.zeros(1), HOME[None])),
            "trajectory: expected the joints .'openarm_right_joint1'.* found .'openarm_right_joint7'",
        ),
    ],
)
def test_invalid_arguments_give_a_one_line_error(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------- the robot's configuration


@pytest.fixture
def configured(tmp_path):
    def load(**changes):
        keys = yaml.safe_load(resolve_robot("openarm").read_text()) | changes
        path = tmp_path / "robot.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in keys.items() if v != "absent"}))
        return load_robot(path)

    return load


def test_boxes_and_self_collision_are_read_from_the_robot_file(configured):
    box = {"name": "pillar", "low": LOW.tolist(), "high": HIGH.tolist()}
    robot = configured(keep_out=[box], self_collision={"margin": 0.005})
    guard = Guardrails.from_robot(robot, sim_arm.scene().urdf, small_space(), None)
    assert guard.margin == 0.005 and [b.name for b in guard.boxes] == ["pillar"]
    np.testing.assert_array_equal(guard.boxes[0].high, HIGH)


def test_keep_out_boxes_apply_to_the_fingers_as_well(configured):
    """The simulated arm's tool frame is at the wrist; its fingers reach 19 cm further."""
    ahead = {"name": "screen", "low": [0.36, -0.5, 0.3], "high": [0.5, 0.0, 0.7]}
    guard = Guardrails.from_robot(configured(keep_out=[ahead]), sim_arm.scene().urdf, sim_arm.space(), sim_arm.limits())
    clearance = guard.clearance(np.array([[0.12, -0.25], [0.30, -0.25]]))
    assert clearance[0] > 0 > clearance[1]
    text = guard.check(joints_along([0.12, -0.25], [0.30, -0.25]))
    assert text.startswith("keep-out box 'screen' and openarm_right_ee_") and " overlap by " in text


def test_self_collision_is_checked_by_default(configured):
    robot = configured(self_collision="absent")
    assert robot.self_collision.margin == 0.02 and robot.self_collision.ignore == [] and robot.keep_out == []
    off = Guardrails.from_robot(configured(self_collision=None), sim_arm.scene().urdf, small_space(), None)
    assert off.collision is None and off.margin == 0.02


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"keep_out": [{"name": "a", "low": [0, 0, 0], "high": [1, 0, 1]}]},
            "keep_out.0: a: expected low < high on",
        ),
        ({"keep_out": [{"name": "a", "low": [0, 0], "high": [1, 1, 1]}]}, "keep_out.0.low"),
        ({"keep_out": [{"name": "a", "low": [0] * 3, "high": [1] * 3}] * 2}, "keep_out: expected different names"),
        ({"self_collision": {"margin": -1}}, "self_collision.margin: expected greater than or equal to 0, found -1"),
        ({"self_collision": {"ignore": [["a"]]}}, "self_collision.ignore.0"),
        ({"self_collision": {"gap": 1}}, "self_collision.gap: expected no such field"),
    ],
)
def test_an_invalid_configuration_is_reported(configured, changes, words):
    with pytest.raises(InputError, match=words):
        configured(**changes)
