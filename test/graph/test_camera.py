"""The camera node between a publisher of good and bad images and a subscriber of frames."""

import json
import signal
import time
from itertools import count

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from jepa_ros.images import preprocess
from jepa_ros.nodes.common.convert import decode_image, image_message, to_ns, to_stamp
from jepa_ros.nodes.common.qos import make_qos
from jepa_ros.resources import resolve_model

pytestmark = pytest.mark.smoke
RNG = np.random.default_rng(0)


class Bench:
    """A camera node in a namespace of its own, fed by hand."""

    def __init__(self, start, client, name, parameters=None, kinds=(Image,), qos=10, warm=True):
        self.client, self.name = client, name
        patient = {"max_age": 2.0, **(parameters or {})}  # a busy machine is no fault
        self.process = start("jepa_ros.nodes.camera", patient, {"__ns": f"/{name}"})
        topics = {Image: f"/{name}/image", CompressedImage: f"/{name}/image/compressed"}
        self.publishers = {kind: client.node.create_publisher(kind, topics[kind], qos) for kind in kinds}
        self.frames = client.collect(Image, f"/{name}/frame")
        self.statuses = client.collect(DiagnosticArray, "/diagnostics")
        for kind in kinds:
            client.wait_for(self.publishers[kind].get_subscription_count, f"{name} to subscribe")
        if warm:  # discovery is over on both sides when a frame has come through
            client.wait_for(lambda: self.send(self.warm_up(kinds[0])) or self.frames, f"the first frame of {name}")

    def warm_up(self, kind):
        return self.image() if kind is Image else self.compressed(np.zeros((8, 8, 3), np.uint8))

    def compressed(self, rgb, cut=None) -> CompressedImage:
        data = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()[:cut]
        message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=data)
        message.header.stamp = to_stamp(self.now())
        return message

    def now(self) -> int:
        return self.client.node.get_clock().now().nanoseconds

    def image(self, age=0.0, rgb=None, **changes) -> Image:
        rgb = RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8) if rgb is None else rgb
        message = image_message(rgb, to_stamp(self.now() - int(age * 1e9)), "eye")
        for field, value in changes.items():
            setattr(message, field, value)
        return message

    def send(self, message):
        self.publishers[type(message)].publish(message)

    def passes(self, message) -> Image:
        """The frame made of this message."""
        self.send(message)

        def found():
            return [f for f in self.frames if f.header.stamp == message.header.stamp]

        return self.client.wait_for(found, "the frame")[0]

    def figures(self) -> dict[str, str]:
        mine = [s for a in self.statuses for s in a.status if s.hardware_id == f"/{self.name}/camera"]
        frames = [s for s in mine if s.name == "camera: frames"]
        return {v.key: v.value for v in frames[-1].values} if frames else {}

    def status(self):
        mine = [s for a in self.statuses for s in a.status if s.hardware_id == f"/{self.name}/camera"]
        return [s for s in mine if s.name == "camera: frames"][-1]

    def drops(self, message, cause):
        before = int(self.figures().get(f"dropped_{cause}", 0))
        self.send(message)
        self.client.wait_for(
            lambda: int(self.figures().get(f"dropped_{cause}", 0)) > before, f"a frame dropped as {cause}"
        )
        assert all(f.header.stamp != message.header.stamp for f in self.frames)


@pytest.fixture(scope="module")
def bench(start, client):
    return Bench(start, client, "bench", {"frozen_after": 0.3})


def test_a_valid_image_is_published_as_a_frame_with_stamp_and_frame_id(bench):
    message = bench.image()
    frame = bench.passes(message)
    assert (frame.width, frame.height, frame.encoding, frame.step) == (64, 64, "rgb8", 192)
    assert frame.header.frame_id == "eye"
    assert (decode_image(frame) == preprocess(decode_image(message), 64)).all()


@pytest.mark.parametrize(
    ("cause", "changes"),
    [
        ("encoding", {"encoding": "32FC1"}),
        ("size", {"width": 0}),
        ("step", {"step": 10}),
        ("truncated", {"height": 47}),
        ("empty", {"data": b""}),
        ("stale", {"age": 5.0}),
        ("future", {"age": -0.5}),
    ],
)
def test_an_invalid_image_is_dropped_and_counted_by_cause(bench, cause, changes):
    bench.drops(bench.image(**changes), cause)
    bench.passes(bench.image())


def test_an_image_with_a_repeated_stamp_is_dropped(bench):
    message = bench.image()
    bench.passes(message)
    bench.send(message)
    bench.client.wait_for(lambda: int(bench.figures().get("dropped_duplicate", 0)), "the duplicate to be counted")
    assert [f.header.stamp for f in bench.frames].count(message.header.stamp) == 1


def test_frozen_frames_are_dropped_until_the_image_changes(bench):
    rgb = RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    first = bench.image(rgb=rgb)
    bench.passes(first)

    def frozen():
        bench.send(bench.image(rgb=rgb))
        return int(bench.figures().get("dropped_frozen", 0))

    bench.client.wait_for(frozen, "frozen frames to be dropped")
    last = max(to_ns(f.header.stamp) for f in bench.frames)
    assert (last - to_ns(first.header.stamp)) * 1e-9 < 0.3
    bench.passes(bench.image())


def test_diagnostics_report_an_error_without_valid_frames(bench):
    bench.passes(bench.image())
    bench.client.wait_for(lambda: bench.status().level == DiagnosticStatus.ERROR, "an error")
    assert bench.status().message == "no valid frames: no image received"

    def recovered():
        bench.send(bench.image())
        return bench.status().level == DiagnosticStatus.OK

    bench.client.wait_for(recovered, "diagnostics to be good again")


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best effort"])
def test_images_of_any_qos_are_received(start, client, reliable):
    bench = Bench(start, client, f"qos_{reliable}".lower(), qos=make_qos(1, reliable, latched=True))
    bench.passes(bench.image())


def test_compressed_images_are_used_without_a_raw_publisher(start, client):
    bench = Bench(start, client, "compressed", kinds=(CompressedImage,))
    rgb = np.full((48, 64, 3), (200, 40, 90), np.uint8)
    frame = bench.passes(bench.compressed(rgb))
    assert np.abs(decode_image(frame).astype(int) - rgb[0, 0]).max() < 6
    bench.drops(bench.compressed(rgb, cut=-9), "truncated")


def test_the_frame_size_is_that_of_the_model(start, client, tmp_path):
    config = json.loads((resolve_model("openarm_reach") / "config.json").read_text())
    config["preprocessing"]["size"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    bench = Bench(start, client, "sized", {"model": tmp_path})
    assert bench.passes(bench.image()).width == 32


def test_a_bag_in_place_of_a_model_refuses_configure_in_one_line(start, tmp_path):
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: {}\n")
    process = start("jepa_ros.nodes.camera", {"model": tmp_path}, {"__ns": "/refused"})
    process.says("expected a checkpoint with config.json")
    assert "Traceback" not in process.output and process.process.poll() is None
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


def test_stamps_that_jump_back_with_the_clock_start_an_episode(start, client):
    from rosgraph_msgs.msg import Clock

    clock = client.node.create_publisher(Clock, "/clock", 10)
    bench = Bench(start, client, "episode", {"use_sim_time": True}, warm=False)

    def passes_at(seconds):
        tries = count()

        def found():
            # The first ones may come before the node has heard the clock, and a stamp passes once at most.
            stamp = to_stamp(int(1e9 * (seconds + 0.05 * next(tries))))
            clock.publish(Clock(clock=stamp))
            message = bench.image()
            message.header.stamp = stamp
            bench.send(message)
            return [f for f in bench.frames if seconds <= f.header.stamp.sec < seconds + 50]

        client.wait_for(found, f"a frame at {seconds} s")

    passes_at(100)
    passes_at(20)
    client.wait_for(lambda: bench.figures().get("episodes") == "1", "the episode to be counted")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sigint_and_sigterm_end_the_camera_node_cleanly(start, number):
    process = start("jepa_ros.nodes.camera", {}, {"__ns": f"/end{int(number)}"})
    process.says("active")
    began = time.monotonic()
    process.signal(number)
    assert process.wait() == 0, process.output
    assert time.monotonic() - began < 5
    assert "Traceback" not in process.output
