"""Rates, stamps and clocks."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.doctor.finding import Finding, error, fine, listed, warning
from jepa_ros.doctor.observations import Job, Seen, Stream
from jepa_ros.robot.gate.types import GateSettings

_GATE = GateSettings()
CAMERA_AGE, CAMERA_AHEAD = 0.5, 0.05  # s, the camera node's max_age and max_skew
JOINTS_AGE, JOINTS_AHEAD = _GATE.joint_stamp_timeout, _GATE.skew
SMOOTH_JOINTS = 20.0  # Hz; less is enough for the gate, but what it then measures is old
OTHER_CLOCK = 30.0  # s; more than any delay
SYNC = "Synchronise the clocks of both machines (chrony or NTP)."


def check(seen: Seen, job: Job) -> list[Finding]:
    """Clocks first: where they are wrong, all stamps are."""
    clock = _clock(seen, job)
    if clock is not None and clock.level:
        return [clock, *_rates(seen, job)]
    found = [clock] if clock is not None else []
    simulated = clock is not None
    if len(seen.joints):
        found += _stamps(job.joint_states, seen.joints, JOINTS_AGE, JOINTS_AHEAD, simulated)
    for camera in seen.cameras:
        if len(camera.stream):
            found += _stamps(camera.topic, camera.stream, CAMERA_AGE, CAMERA_AHEAD, simulated)
    return [*found, *_rates(seen, job)]


def _clock(seen: Seen, job: Job) -> Finding | None:
    """Simulated time: None where nobody uses it and nothing is stamped with it."""
    users = sorted(name for name, node in seen.nodes.items() if node.use_sim_time)
    if job.use_sim_time:
        users.append("--use-sim-time")
    if users and not seen.clock_moves:
        there = "a publisher that says nothing" if seen.topic("/clock").publishers else "nobody who publishes it"
        advice = f"Start the simulator, or set use_sim_time to false for {listed(users)}."
        return error("clock", "/clock", f"simulated time, which {listed(users)} wait for", there, advice)
    if users:
        return fine("clock", "/clock", f"simulated time, used by {listed(users)}")
    streams = [seen.joints, *(c.stream for c in seen.cameras)]
    if seen.clock_moves and any(_follows_clock(s) for s in streams):
        found = "stamps of simulated time (/clock)"
        return warning("clock", "/clock", "stamps of the system's clock", found, "Start our nodes with --use-sim-time.")
    return None


def _follows_clock(stream: Stream) -> bool:
    if not len(stream):
        return False
    stamps = np.array(stream.stamps)
    wall, simulated = (np.abs(np.array(times) - stamps) for times in (stream.received, stream.clock))
    return bool(np.isfinite(simulated).any() and np.nanmedian(simulated) < OTHER_CLOCK < np.median(wall))


def _stamps(topic: str, stream: Stream, behind: float, ahead: float, simulated: bool) -> list[Finding]:
    stamps = np.array(stream.stamps)
    what = f"stamps of {topic}"
    if (stamps == 0).any():
        share = f"0 in {int((stamps == 0).sum())} of {len(stamps)} messages"
        advice = "Have the driver fill in header.stamp at the moment of measuring."
        return [error("stamps", what, "the time of measuring", share, advice)]
    if len(stamps) > 1 and (np.diff(stamps) <= 0).any():
        count = int((np.diff(stamps) <= 0).sum())
        advice = "Two publishers on one topic, or a driver that repeats or reorders its messages."
        return [error("stamps", what, "later from message to message", f"{count} that are not", advice)]
    times = np.array(stream.clock if simulated else stream.received)
    known = np.isfinite(times)
    if not known.any():
        return []
    age = float(np.median((times - stamps)[known]))
    if -ahead <= age <= behind:
        return [fine("stamps", what, f"{1e3 * age:.0f} ms old on arrival")]
    expected = f"at most {behind:g} s old and {ahead:g} s ahead of our clock"
    where = f"{abs(age):.3g} s {'old' if age > 0 else 'ahead'}"
    if abs(age) > 1e8:
        advice = "One side uses simulated time, the other one the system's: give all nodes the same use_sim_time."
    elif abs(age) > 1.0:
        advice = SYNC
    else:
        advice = f"{SYNC} If they are, the driver or the network delays messages."
    return [error("clocks", what, expected, where, advice)]


def rate(stream: Stream, seconds: float) -> float:
    """Messages a second, by when they came."""
    n = len(stream)
    span = stream.received[-1] - stream.received[0] if n > 2 else 0.0
    return (n - 1) / span if span > 0 else n / seconds


def _rates(seen: Seen, job: Job) -> list[Finding]:
    found = []
    if len(seen.joints):
        least, why = 1 / _GATE.joint_timeout, "the gate stops without any for that long"
        name = job.joint_states
        found.append(_rate(name, rate(seen.joints, seen.seconds), least, SMOOTH_JOINTS, why))
    for camera in seen.cameras:
        if len(camera.stream):
            least, why = 1 / _GATE.latent_timeout, "the gate stops without a frame for that long"
            good = job.model.control_rate
            found.append(_rate(camera.topic, rate(camera.stream, seen.seconds), least, good, why))
    return found


def _rate(topic: str, found: float, least: float, good: float, why: str) -> Finding:
    what, shown = f"rate of {topic}", f"{found:.3g} Hz"
    if found < least:
        advice = f"Raise the publisher's rate: {why}."
        return error("rate", what, f"at least {least:.3g} Hz, better {good:g}", shown, advice)
    if found < 0.9 * good and not math.isclose(found, good):
        return warning("rate", what, f"at least {good:g} Hz", shown, "Raise the publisher's rate.")
    return fine("rate", what, shown)
