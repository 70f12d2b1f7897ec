"""Scene, gate and controller together: plans move the real tool as their actions say."""

import numpy as np
import pytest

from helpers import sim_arm
from jepa_ros.robot.gate.types import GateState
from jepa_ros.sim.cell import ArmCell

KNOTS = np.array([[0.3, 0.1], [0.6, 0.3], [0.8, 0.4], [0.8, 0.4], [0.4, 0.0], [0.2, -0.4], [0.0, -0.2]])
XY = np.array([0.12, -0.32])


@pytest.fixture(scope="module")
def run():
    """The ticks, references and places of one plan from rest, started a tick after the reset."""
    cell = ArmCell(sim_arm.scene(), sim_arm.robot())
    cell.reset(cell.space.inverse_kinematics(XY))
    for _ in cell.advance(0.3):
        pass
    now = cell.scene.time
    q, qd, qdd = cell.gate.tick(now).reference
    begin = np.ceil(now / 0.1 + 1) * 0.1
    plan = cell.space.to_trajectory(q, qd, qdd, KNOTS)
    places = [cell.scene.frame_position("openarm_right_ee_control_point")]
    verdict = cell.gate.submit_plan(plan, begin, now, begin + plan.duration + 1.0, 7, now)
    ticks = list(cell.advance(begin - now + plan.duration + 0.5))
    places.append(cell.scene.frame_position("openarm_right_ee_control_point"))
    return cell, verdict, begin, plan, ticks, places


def wanted():
    knots = np.vstack([np.zeros(2), KNOTS])
    return 0.5 * (knots[1:] + knots[:-1])


def test_the_gate_accepts_and_completes_the_plan(run):
    cell, verdict, *_ = run
    assert verdict, verdict.text
    assert cell.gate.tick(cell.scene.time).status.state == GateState.HOLDING


def test_executed_ticks_equal_the_plan(run):
    _, _, begin, plan, ticks, _ = run
    starts = [t.start for t in ticks]
    np.testing.assert_allclose(np.diff(starts), 0.1, atol=1e-6)
    executed = {round((t.start - begin) / 0.1): t for t in ticks}
    for k, action in enumerate(wanted()):
        np.testing.assert_allclose(executed[k].values, action, atol=0.02)
        assert executed[k].plan_id == 7
    for k in (-1, round(plan.duration / 0.1) + 2):
        np.testing.assert_allclose(executed[k].values, 0.0, atol=1e-3)


def test_the_tool_moves_by_the_sum_of_the_actions(run):
    *_, ticks, (before, after) = run
    moved = sum(t.values for t in ticks) * 0.2 * 0.1
    assert np.linalg.norm(wanted().sum(0) * 0.02) > 0.05
    np.testing.assert_allclose((after - before)[:2], moved, atol=0.01)
    assert abs(after[2] - before[2]) < 0.01


def test_reset_ends_the_motion():
    cell = ArmCell(sim_arm.scene(), sim_arm.robot())
    q = cell.space.inverse_kinematics(XY)
    cell.reset(q)
    plan = cell.space.to_trajectory(q, np.zeros(7), np.zeros(7), KNOTS)
    now = cell.scene.time
    assert cell.gate.submit_plan(plan, now, now, now + 5.0, 1, now)
    for _ in cell.advance(0.3):
        pass
    elsewhere = cell.space.inverse_kinematics(XY + [0.1, 0.05])
    cell.reset(elsewhere)
    for _ in cell.advance(0.3):
        pass
    np.testing.assert_allclose(cell.scene.positions(cell.joints), elsewhere, atol=0.01)
    fields = cell.proprioception(("openarm_right_finger_joint1",))
    assert fields.shape == (15,)
    np.testing.assert_array_equal(fields[:7], cell.scene.positions(cell.joints))
