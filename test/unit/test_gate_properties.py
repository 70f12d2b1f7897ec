"""Property tests of the gate: with any plans, clocks, joint states and requests, all limits are kept and the arm rests.

The bench asserts the limits on every window and every reference; here is what may happen to it.
"""

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.gate_simulation import NAMES, START, Bench, at_rest, continuing
from jepa_ros.robot.gate.controller_watch import ControllerReport
from jepa_ros.robot.gate.types import Cause, GateCode, GateState
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.trajectory import JointTrajectory

CAUSE = Cause(GateCode.STOP_SERVICE, "test")
SEEDS = st.integers(0, 2**32 - 1)


def a_plan(bench, rng, ahead):
    """From gentle to absurd, from about where the reference will be to somewhere else."""
    path = bench.gate._track.path if bench.gate._track else bench.gate._path
    state = np.zeros((3, 7)) if path is None else path.at(bench.gate._clock.time + ahead).copy()
    mismatch = rng.choice([0.0, 1e-5, 1e-3, 0.05, 0.5], p=[0.5, 0.1, 0.2, 0.15, 0.05])
    state += rng.normal(size=(3, 7)) * mismatch * np.array([[1.0], [3.0], [10.0]])
    reach = rng.choice([0.1, 0.5, 2.0, 10.0], p=[0.4, 0.4, 0.15, 0.05])
    goal = state[0] + rng.normal(size=7) * reach * rng.choice([0.0, 1.0], size=7)
    plan = continuing(state, np.clip(goal, -2.1, 2.1) if rng.random() < 0.8 else goal, rng.uniform(0.15, 2.5))
    fields = {f: np.array(getattr(plan, f)) for f in ("times", "positions", "velocities", "accelerations")}
    if rng.random() < 0.15:  # noise, within the plan or all over
        f, scale = rng.choice(["positions", "velocities", "accelerations"]), rng.choice([1e-4, 1e-2, 1.0, 1e6])
        fields[f][:-1] += rng.normal(size=fields[f][:-1].shape) * scale
    if rng.random() < 0.1:
        fields["times"] *= rng.choice([0.3, 0.9, 1.5, 5.0])
    if rng.random() < 0.1 and len(plan.times) > 6:  # sparse or uneven points
        keep = np.sort(rng.choice(len(plan.times) - 1, len(plan.times) // 3, replace=False))
        fields = {k: v[np.append(keep, len(v) - 1)] for k, v in fields.items()}
    names = NAMES if rng.random() < 0.95 else tuple(rng.permutation(NAMES))
    made = JointTrajectory(names, **fields)
    if rng.random() < 0.05:  # the class refuses these, but the gate does not count on it
        made.positions[rng.integers(len(made.times))] = rng.choice([np.nan, np.inf, 1e300])
    return made


def send_plan(bench, rng):
    ahead = rng.choice([0.0, 0.05, 0.15, -0.05, -0.3, 0.8, 3.0], p=[0.3, 0.2, 0.2, 0.1, 0.05, 0.1, 0.05])
    if bench.state == GateState.HOLDING and bench.measured is not None:
        bench.jump_allowed()  # after a long rest elsewhere the measured position may be the new start
    plan, valid, age = a_plan(bench, rng, ahead), rng.choice([0.05, 0.4, 2.0]), rng.choice([0.0, 0.2, 2.0])
    bench.plan(plan, ahead, valid, int(rng.integers(99)), bench.now - age)


def jump_clock(bench, rng):
    bench.now += rng.choice([-50.0, -0.5, -0.002, 0.5, 300.0])
    bench.jump_allowed()


def release(bench, rng):
    bench.jump_allowed()
    bench.gate.release(bench.now)


def disturb_joints(bench, rng):
    q = bench.q
    bench.measured = [None, q.copy(), q + 0.02, q + rng.normal(size=7), np.full(7, np.nan)][rng.integers(5)]


def switch_inputs(bench, rng):
    bench.send_joints, bench.send_latents = rng.random() < 0.8, rng.random() < 0.8


def odd_states(bench, rng):
    names = list(rng.permutation(NAMES))[: rng.integers(0, 8)] + ["finger"]
    bench.gate.update_joint_states(names, rng.normal(size=rng.integers(0, 9)).tolist(), None, bench.now, bench.now)


def report_state(bench, rng):
    """What a controller says of itself, or what somebody says in its name."""
    q = bench.q + rng.choice([0.0, 1e-3, 0.05, 1.0]) * rng.normal(size=7)
    q[rng.random(7) < 0.05] = np.nan
    speed = rng.choice([1.0, 0.5, 0.0, np.nan], p=[0.85, 0.05, 0.05, 0.05])
    stamp = bench.now + rng.choice([0.0, -0.02, -5.0, 5.0], p=[0.6, 0.2, 0.1, 0.1])
    bench.gate.update_controller(ControllerReport("arm", NAMES, q, speed, stamp), bench.now)


EVENTS = {
    "plan": send_plan,
    "clock": jump_clock,
    "release": release,
    "joints": disturb_joints,
    "healthy": lambda bench, rng: bench.__dict__.update(measured=None, send_joints=True, send_latents=True),
    "inputs": switch_inputs,
    "odd states": odd_states,
    "odd latent": lambda bench, rng: bench.gate.record_latent(
        rng.choice([0.0, np.nan, np.inf, bench.now + 9]), bench.now
    ),
    "stop": lambda bench, rng: bench.gate.stop_and_latch(CAUSE, bench.now),
    "e-stop": lambda bench, rng: bench.gate.update_e_stop(bool(rng.random() < 0.5), bench.now),
    "report": report_state,
    "activity": lambda bench, rng: bench.gate.update_activity(
        [{}, {"arm": "inactive"}, None][rng.integers(3)], bench.now
    ),
    "halt": lambda bench, rng: bench.gate.stop_and_hold(CAUSE, bench.now),
}
WEIGHTED = st.sampled_from(["plan"] * 12 + ["healthy"] * 4 + [*EVENTS, "release", "release", "report"])
SCRIPT = st.lists(st.tuples(WEIGHTED, st.floats(0.0, 0.6), SEEDS), min_size=1, max_size=14)


def play(bench, script):
    for event, wait, seed in script:
        EVENTS[event](bench, np.random.default_rng(seed))
        bench.step(wait)
    # Whatever happened, with nothing more coming the arm is at rest before long and stays there.
    bench.send_joints = bench.send_latents = False
    bench.step(3.5)
    assert at_rest(bench.output.reference)
    assert bench.state in (GateState.HOLDING, GateState.LATCHED, GateState.INACTIVE)
    if bench.windows:
        last = bench.windows[-1]
        assert np.isfinite(last.trajectory.positions).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCRIPT, st.booleans())
@example([("plan", 0.0, 16552), ("joints", 0.25, 1), ("clock", 0.5, 34)], False)  # the clock goes back while it stops
def test_any_input_sequence_respects_the_limits_and_ends_at_rest(script, latch):
    kind = dict(start_tolerance=0.3, source_timeout=5.0, latch_on_gross=latch)
    play(Bench(**kind).ready(), script)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCRIPT, SEEDS)
def test_any_limits_and_any_start_outside_them_are_handled(script, seed):
    rng = np.random.default_rng(seed)
    limits = JointLimits(
        NAMES,
        rng.uniform(-2.0, -0.5, 7),
        rng.uniform(0.5, 2.0, 7),
        rng.uniform(0.2, 3.0, 7),
        10 ** rng.uniform(0.0, 1.5, 7),
        10 ** rng.uniform(1.0, 3.5, 7),
    )
    play(Bench(limits=limits, q=rng.uniform(-2.2, 2.2, 7), following_error=0.5).ready(), script)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(SEEDS, st.floats(0.0, 1.5))
def test_a_stop_at_any_time_in_any_plan_ends_within_400_ms(seed, when):
    rng = np.random.default_rng(seed)
    bench = Bench(q=rng.uniform(-1.0, 1.0, 7)).ready()
    goal = np.clip(bench.q + rng.normal(size=7) * 0.5, -1.9, 1.9)
    bench.plan(continuing(bench.gate._path.at(0.0), goal, 2.0), valid=9.0)
    bench.step(when)
    bench.gate.stop_and_latch(CAUSE, bench.now)
    began = bench.now
    bench.until(GateState.LATCHED, within=1.0)
    assert bench.now - began < 0.4


def test_the_same_input_sequence_gives_the_same_motion():
    script = [("plan", 0.4, 3), ("plan", 0.4, 5), ("inputs", 0.3, 1), ("healthy", 0.5, 0), ("plan", 0.5, 9)]
    runs = []
    for _ in range(2):
        bench = Bench().ready()
        play(bench, script)
        runs.append(np.array([r for r in bench.references if r is not None]))
    np.testing.assert_array_equal(*runs)


def test_rounding_of_absolute_times_has_no_effect():
    """A ROS time of today leaves float64 0.2 µs; the jerk of a window must not be made of that."""
    assert np.spacing(START) > 1e-7
    bench = Bench(limits=JointLimits(NAMES, *np.full((2, 7), 2.0) * [[-1], [1]], *np.full((3, 7), [[1], [2], [10]])))
    bench.ready()
    bench.now += 0.0123456789
    bench.jump_allowed()
    assert bench.plan(continuing(np.zeros((3, 7)), np.full(7, 0.2), 2.5), ahead=0.1234567)
    bench.step(3.0)
    assert bench.state == GateState.HOLDING and bench.gate.clipped == 0
