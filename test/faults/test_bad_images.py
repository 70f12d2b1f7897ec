"""Pictures that fail to come, lie about their time, hang, or are no pictures."""

import copy
import time

import numpy as np
import pytest

from helpers.fault_graph import SETTINGS, Graph
from jepa_ros.nodes.common.convert import byte_array, to_ns, to_seconds, to_stamp

FROZEN_AFTER = 0.4  # s
CAUGHT = 50.0  # ms
PLANNER_WAITS = 0.3  # s, the planner's latent_timeout


@pytest.fixture(scope="module")
def noisy():
    """Adds the noise of a real sensor; without it an arm at rest looks frozen."""
    rng = np.random.default_rng(0)

    def add(message):
        pixels = np.frombuffer(message.data, np.uint8) ^ rng.integers(0, 2, len(message.data), dtype=np.uint8)
        message.data = byte_array(pixels)
        return [message]

    return add


@pytest.fixture(scope="module")
def graph(start, client, noisy):
    frozen = {"camera": {"frozen_after": FROZEN_AFTER, "transport": "raw"}}
    return Graph(start, client, frozen, pictures=noisy)


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)


def heals(arm, cause: str, fault: float) -> None:
    """The cause is said; then pictures are good again, and the goal is followed on."""
    arm.says(cause, fault)
    arm.resumes(arm.heal())


@pytest.mark.fault(1)
def test_a_camera_dropout_stops_the_arm_until_fresh_frames_arrive(arm, measured):
    arm.moving()
    fault = time.time()
    arm.images.drop()
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    assert measured["caught_ms"] < CAUGHT
    arm.says("arm_gate: holding: no latent for 0.20 s", fault)
    arm.says("planner: no latent for 0.3 s", fault)
    heals(arm, "camera: frames: no valid frames: no image received", fault)


@pytest.mark.parametrize(
    ("shift", "cause"),
    [pytest.param(-2.0, "stale", marks=pytest.mark.fault(2)), pytest.param(0.5, "future", marks=pytest.mark.fault(4))],
)
def test_images_with_stale_or_future_stamps_are_never_used_for_planning(arm, measured, noisy, shift, cause):
    def shifted(message):
        message.header.stamp = to_stamp(to_ns(message.header.stamp) + int(shift * 1e9))
        return noisy(message)

    arm.moving()
    before = int(arm.diagnostic("camera: frames").get(f"dropped_{cause}", "0"))
    arm.moving()
    fault = time.time()
    arm.images.change = shifted
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    assert measured["caught_ms"] < CAUGHT
    assert int(arm.diagnostic("camera: frames")[f"dropped_{cause}"]) > before + 5
    # A search that was under way may end after the gate has noticed, but of a frame from before the fault.
    assert not [t for t, _ in arm.plans if t > stopped.caught + PLANNER_WAITS], "plans were made without frames"
    sources = [to_seconds(m.source_stamp) - fault for t, m in arm.plans if t > fault]
    assert all(-1.0 < s < 0.2 for s in sources), f"planned on images of another time: {sources}"
    heals(arm, f"camera: frames: .*dropped .last cause: {cause}", fault)


@pytest.mark.fault(3)
def test_a_frozen_image_counts_as_a_camera_dropout(arm, measured):
    held = []

    def hang(message):
        held.append(held[0] if held else message.data)
        message.data = held[0]
        return [message]

    arm.moving()
    fault = time.time()
    arm.images.change = hang
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    assert measured["caught_ms"] < CAUGHT
    # From the picture that hangs: two frames more or less, which the camera counts by.
    assert stopped.caught - fault < FROZEN_AFTER + SETTINGS.latent_timeout + 0.25
    heals(arm, "camera: frames: .*dropped .last cause: frozen", fault)


SPOILT = {
    "encoding": {"encoding": "jpeg2000"},
    "size": {"width": 0},
    "step": {"step": 7},
    "empty": {"data": byte_array(np.zeros(0, np.uint8))},
    "truncated": {"data": byte_array(np.zeros(1000, np.uint8))},
    "endianness": {"encoding": "rgb16", "width": 64, "is_bigendian": 7},
}


@pytest.mark.fault(17)
@pytest.mark.parametrize("cause", SPOILT)
def test_invalid_images_are_dropped_and_stop_the_arm(arm, measured, cause):
    def spoil(message):
        message = copy.copy(message)
        for field, value in SPOILT[cause].items():
            setattr(message, field, value)
        return [message]

    arm.moving()
    fault = time.time()
    arm.images.change = spoil
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    assert measured["caught_ms"] < CAUGHT
    heals(arm, f"camera: frames: .*dropped .last cause: {cause}", fault)
    assert arm.processes["camera"].output.count("frame dropped: image") <= 3 * len(SPOILT), "the log was flooded"


@pytest.mark.fault(7)
def test_an_image_with_nan_is_refused(arm, measured):
    def not_a_number(message):
        message.encoding, message.step = "32FC3", message.width * 12
        message.data = byte_array(np.full(message.height * message.width * 3, np.nan, np.float32).view(np.uint8))
        return [message]

    arm.moving()
    fault = time.time()
    arm.images.change = not_a_number
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    heals(arm, "camera: frames: .*dropped .last cause: encoding", fault)
