"""Check of clocks, stamps and rates."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import MessageTimes, Observations, RobotSetup
from jepa_ros.robot.gate.types import GateSettings

_GATE = GateSettings()
CAMERA_AGE, CAMERA_AHEAD = 0.5, 0.05  # s, the camera node's max_age and max_skew
JOINTS_AGE, JOINTS_AHEAD = _GATE.joint_stamp_timeout, _GATE.skew
SMOOTH_JOINTS_RATE = 20.0  # Hz; the gate works with less, but on old measurements
OTHER_CLOCK_DIFFERENCE = 30.0  # s; more than any delay
SYNC_ADVICE = "Synchronise the clocks of both machines (chrony or NTP)."


def check(observed: Observations, setup: RobotSetup) -> list[Finding]:
    """Check the clock first: if it is wrong, all stamps are."""
    clock = _clock(observed, setup)
    if clock is not None and clock.level:
        return [clock, *_rates(observed, setup)]
    found = [clock] if clock is not None else []
    simulated = clock is not None
    if len(observed.joints):
        found += _stamps(setup.joint_states_topic, observed.joints, JOINTS_AGE, JOINTS_AHEAD, simulated)
    for camera in observed.cameras:
        if len(camera.times):
            found += _stamps(camera.topic, camera.times, CAMERA_AGE, CAMERA_AHEAD, simulated)
    return [*found, *_rates(observed, setup)]


def _clock(observed: Observations, setup: RobotSetup) -> Finding | None:
    """Check simulated time; None if no node uses it and no message is stamped with it."""
    users = sorted(name for name, node in observed.nodes.items() if node.use_sim_time)
    if setup.use_sim_time:
        users.append("--use-sim-time")
    if users and not observed.clock_moves:
        has_publisher = observed.topic("/clock").publishers
        found = "a publisher that sends nothing" if has_publisher else "no publisher"
        advice = f"Start the simulator, or set use_sim_time to false for {join_names(users)}."
        wanted = f"simulated time, which {join_names(users)} wait for"
        return error(Code.CLOCK_MISSING, "/clock", wanted, found, advice)
    if users:
        return ok("clock", "/clock", f"simulated time, used by {join_names(users)}")
    streams = [observed.joints, *(c.times for c in observed.cameras)]
    if observed.clock_moves and any(_follows_clock(s) for s in streams):
        found = "stamps of simulated time (/clock)"
        wanted, advice = "stamps of the system clock", "Start the nodes with --use-sim-time."
        return warning(Code.CLOCK_SIMULATED, "/clock", wanted, found, advice)
    return None


def _follows_clock(stream: MessageTimes) -> bool:
    if not len(stream):
        return False
    stamps = np.array(stream.stamps)
    wall, simulated = (np.abs(np.array(times) - stamps) for times in (stream.received, stream.clock))
    return bool(np.isfinite(simulated).any() and np.nanmedian(simulated) < OTHER_CLOCK_DIFFERENCE < np.median(wall))


def _stamps(topic: str, stream: MessageTimes, behind: float, ahead: float, simulated: bool) -> list[Finding]:
    stamps = np.array(stream.stamps)
    what = f"stamps of {topic}"
    if (stamps == 0).any():
        share = f"0 in {int((stamps == 0).sum())} of {len(stamps)} messages"
        advice = "Let the driver set header.stamp to the time of measurement."
        return [error(Code.STAMPS_ZERO, what, "the time of measurement", share, advice)]
    if len(stamps) > 1 and (np.diff(stamps) <= 0).any():
        count = int((np.diff(stamps) <= 0).sum())
        advice = "Two publishers on one topic, or a driver that repeats or reorders its messages."
        wanted, found = "later from message to message", f"{count} that are not"
        return [error(Code.STAMPS_ORDER, what, wanted, found, advice)]
    times = np.array(stream.clock if simulated else stream.received)
    known = np.isfinite(times)
    if not known.any():
        return []
    age = float(np.median((times - stamps)[known]))
    if -ahead <= age <= behind:
        return [ok("stamps", what, f"{1e3 * age:.0f} ms old on arrival")]
    expected = f"at most {behind:g} s old and {ahead:g} s ahead of this machine's clock"
    where = f"{abs(age):.3g} s {'old' if age > 0 else 'ahead'}"
    if abs(age) > 1e8:
        advice = "One side uses simulated time, the other system time: give all nodes the same use_sim_time."
    elif abs(age) > 1.0:
        advice = SYNC_ADVICE
    else:
        advice = f"{SYNC_ADVICE} If they are, the driver or the network delays messages."
    return [error(Code.CLOCKS_DIFFER, what, expected, where, advice)]


def message_rate(times: MessageTimes, seconds: float) -> float:
    """Return messages per second, by the times they were received."""
    n = len(times)
    span = times.received[-1] - times.received[0] if n > 2 else 0.0
    return (n - 1) / span if span > 0 else n / seconds


def _rates(observed: Observations, setup: RobotSetup) -> list[Finding]:
    found = []
    if len(observed.joints):
        least, why = 1 / _GATE.joint_timeout, "with a longer gap the gate stops"
        name = setup.joint_states_topic
        found.append(_rate(name, message_rate(observed.joints, observed.seconds), least, SMOOTH_JOINTS_RATE, why))
    for camera in observed.cameras:
        if len(camera.times):
            least, why = 1 / _GATE.latent_timeout, "with a longer gap the gate stops"
            good = setup.model.control_rate
            found.append(_rate(camera.topic, message_rate(camera.times, observed.seconds), least, good, why))
    return found


def _rate(topic: str, found: float, least: float, good: float, why: str) -> Finding:
    what, shown = f"rate of {topic}", f"{found:.3g} Hz"
    if found < least:
        advice = f"Raise the publisher's rate: {why}."
        return error(Code.RATE_TOO_LOW, what, f"at least {least:.3g} Hz, better {good:g}", shown, advice)
    if found < 0.9 * good and not math.isclose(found, good):
        return warning(Code.RATE_LOW, what, f"at least {good:g} Hz", shown, "Raise the publisher's rate.")
    return ok("rate", what, shown)
