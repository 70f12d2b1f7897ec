"""A world_model node with a model of two cameras: it needs frames of both with matching stamps."""

import re

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from jepa_msgs.msg import LatentState
from jepa_msgs.srv import EncodeGoal
from sensor_msgs.msg import Image

from helpers.untrained_model import fresh_model
from jepa_ros.nodes.common.convert import image_message, to_ns, to_stamp

NAME, CAMERAS, SIZE = "two_eyes", ("frame", "wrist/frame"), 32
PICTURES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
MS = 10**6


class Bench:
    """The node in a namespace of its own, its cameras played by hand."""

    def __init__(self, start, client, model):
        self.client = client
        patient = {"model": model, "frame_timeout": 2.0}  # a busy machine is no fault
        self.process = start("jepa_ros.nodes.world_model", patient, {"__ns": f"/{NAME}"})
        self.latents = client.collect(LatentState, f"/{NAME}/latent")
        self.statuses = client.collect(DiagnosticArray, "/diagnostics")
        self.publishers = [client.node.create_publisher(Image, f"/{NAME}/{camera}", 10) for camera in CAMERAS]
        for publisher, camera in zip(self.publishers, CAMERAS, strict=True):
            client.wait_for(publisher.get_subscription_count, f"a subscription of {camera}", 120.0)
        client.wait_for(lambda: self.send_pair() and self.latents, "the first latent")

    def now(self) -> int:
        return self.client.node.get_clock().now().nanoseconds

    def send(self, camera, stamp, picture=None):
        rgb = PICTURES[camera] if picture is None else picture
        self.publishers[camera].publish(image_message(rgb, to_stamp(stamp), f"eye{camera}"))
        return stamp

    def send_pair(self, apart=0, pictures=PICTURES):
        """Frames of both cameras, the second stamped `apart` ns later; the first one's stamp."""
        stamp = self.send(0, self.now(), pictures[0])
        self.send(1, stamp + apart, pictures[1])
        return stamp

    def stamps(self) -> set[int]:
        return {to_ns(latent.header.stamp) for latent in self.latents}

    def sees(self, pictures, apart=0) -> LatentState:
        """The latent of a pair of frames, sent when frames of before are too old to be of the same moment."""
        self.client.spin(0.2)
        sent = set()

        def found():
            sent.add(self.send_pair(apart, pictures))
            return [latent for latent in self.latents if to_ns(latent.header.stamp) in sent]

        return self.client.wait_for(found, "a latent")[-1]

    def says(self, text, level, send=lambda: None) -> DiagnosticStatus:
        """The next status of inference that says this (a regular expression); `send` goes on meanwhile."""
        seen = len(self.statuses)

        def found():
            send()
            mine = [s for a in self.statuses[seen:] for s in a.status if s.hardware_id == f"/{NAME}/world_model"]
            return [
                s for s in mine if s.name.endswith("inference") and re.fullmatch(text, s.message) and s.level == level
            ]

        return self.client.wait_for(found, f"diagnostics that say {text!r}", 60.0)[-1]

    def ask(self, *pictures) -> EncodeGoal.Response:
        images = [image_message(picture, to_stamp(0), "goal") for picture in pictures]
        request = EncodeGoal.Request(image=images[0], more_images=images[1:])
        return self.client.call(EncodeGoal, f"/{NAME}/encode_goal", request, again=5.0)


@pytest.fixture(scope="module")
def bench(start, client, tmp_path_factory):
    model = fresh_model(tmp_path_factory.mktemp("model"), cameras=CAMERAS, preprocessing={"size": SIZE})
    return Bench(start, client, model)


def test_latents_have_the_header_of_the_first_camera(bench):
    for apart in (0, 7 * MS, -7 * MS):
        latent = bench.sees(PICTURES, apart)
        assert latent.header.frame_id == "eye0"
        assert list(latent.shape) == [16] and np.isfinite(latent.data).all()
    bench.says("frames are encoded", DiagnosticStatus.OK, bench.send_pair)


def test_latents_depend_on_the_order_of_the_views(bench):
    straight, swapped = (np.array(bench.sees(pictures).data) for pictures in (PICTURES, PICTURES[::-1]))
    assert not np.allclose(straight, swapped, atol=1e-4)
    np.testing.assert_allclose(bench.sees(PICTURES).data, straight, atol=1e-6)


def test_a_goal_has_one_image_per_camera(bench):
    seen = bench.sees(PICTURES)
    answer = bench.ask(*PICTURES)
    assert answer.success and answer.latent.model_id == seen.model_id, answer.message
    np.testing.assert_allclose(answer.latent.data, seen.data, atol=1e-6)
    for wrong in (PICTURES[:1], [*PICTURES, PICTURES[0]]):
        answer = bench.ask(*wrong)
        assert not answer.success
        assert answer.message == f"goal images: expected 2 (frame, wrist/frame), found {len(wrong)}"


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_camera_is_named_and_no_latent_is_published(bench, silent):
    bench.sees(PICTURES)
    bench.client.spin(0.2)
    alone = set()
    bench.says(
        f"no frames received on {CAMERAS[silent]}",
        DiagnosticStatus.ERROR,
        lambda: alone.add(bench.send(1 - silent, bench.now())),
    )
    assert len(alone) > 5 and not alone & bench.stamps()
    bench.sees(PICTURES)
    bench.says("frames are encoded", DiagnosticStatus.OK, bench.send_pair)


def test_cameras_with_different_clocks_are_reported(bench):
    bench.sees(PICTURES)
    sent = set()
    status = bench.says(
        "wrist/frame: frames are stamped .* s earlier than those on frame",
        DiagnosticStatus.ERROR,
        lambda: sent.add(bench.send_pair(-3000 * MS)),
    )
    assert not sent & bench.stamps()
    assert int({v.key: v.value for v in status.values}["incomplete_sets"]) > 0


def test_a_jump_back_in_time_starts_a_new_episode(bench):
    """A recording that is played again: the earlier stamps give latents as well."""
    bench.sees(PICTURES)
    begin, sent = bench.now() - 3600 * 1000 * MS, []

    def again():
        sent.append(begin + 50 * MS * len(sent))
        for camera in range(2):
            bench.send(camera, sent[-1])
        return set(sent) & bench.stamps()

    bench.client.wait_for(again, "a latent of an earlier time")
