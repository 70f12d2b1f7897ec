"""Each check of `jepa_ros doctor` on frames, camera and model, with one thing wrong; overlay and files."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.doctor_cases import (
    MODEL,
    ROBOT,
    SETUP,
    bad,
    good,
    only,
    picture,
    stream,
)
from jepa_ros import cli
from jepa_ros.doctor import overlay, report
from jepa_ros.doctor.camera import check_frames, check_images
from jepa_ros.doctor.finding import FindingCode, Level, error, ok
from jepa_ros.doctor.model import ModelView, check_fit, check_view
from jepa_ros.doctor.observations import (
    IMAGES,
    Endpoint,
    Intrinsics,
    NodeParameters,
    Observations,
    Topic,
)
from jepa_ros.doctor.topics import message_rate
from jepa_ros.errors import InputError

# -- frames, camera, model ---------------------------------------------------------------------------------------------


def test_a_rotated_camera_is_a_warning_and_a_moved_one_an_error():
    observed = good()
    turn = (math.cos(math.radians(4)), math.sin(math.radians(4)), 0.0, 0.0)  # 8° about the optical axis
    observed.transforms[ROBOT.camera.frame_id] = (ROBOT.base_frame, MODEL.camera.position, turn)
    assert "8.0° away" in only("camera_pose", observed, level=Level.WARNING)
    observed.transforms[ROBOT.camera.frame_id] = (ROBOT.base_frame, (1.0, 0.0, 1.0), turn)
    assert bad(observed)[0].level is Level.ERROR


def test_unconnected_tf_trees_are_reported():
    found, *_ = check_frames(
        Observations(
            transforms={
                ROBOT.tool_frame: ("other", (0, 0, 0), (0, 0, 0, 1)),
                "x": (ROBOT.base_frame, (0, 0, 0), (0, 0, 0, 1)),
            }
        ),
        SETUP,
    )
    assert "two trees" in found.line()


@pytest.mark.parametrize(
    ("scale", "size", "level"),
    [(1.0, (320, 240), 0), (2.0, (640, 480), 0), (1.1, (320, 240), 1), (1.5, (320, 240), 2), (1.0, (640, 480), 2)],
)
def test_the_field_of_view_of_the_square_crop_is_compared(scale, size, level):
    observed, t = good(), MODEL.camera
    camera = observed.cameras[0]
    centre = (size[0] - 1) / 2, (size[1] - 1) / 2
    camera.intrinsics, camera.sizes = Intrinsics(*size, scale * t.fx, scale * t.fy, *centre), [size]
    assert [f.level for f in bad(observed)] == ([Level(level)] if level else [])


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"image": np.zeros((240, 320, 3), np.uint8)}, "dark"),
        ({"image": np.full((240, 320, 3), 127, np.uint8)}, "dark"),
        ({"frozen_s": 3.0}, "frozen"),
        ({"sizes": [(320, 240), (640, 480)]}, "cameras"),
        ({"image": None, "problem": "image encoding: found '32FC1'"}, "encoding"),
    ],
)
def test_unusable_camera_images_are_reported(change, check):
    observed = good()
    for name, value in change.items():
        setattr(observed.cameras[0], name, value)
    only(check, observed)


def test_a_still_simulated_image_is_not_reported_as_frozen():
    observed = good()
    observed.cameras[0].frozen_s = 3.0
    observed.nodes["/camera"] = NodeParameters(frozen_after=0.0)
    assert not bad(observed)
    del observed.nodes["/camera"]
    observed.topics["/image"] = Topic([Endpoint("/simulator", IMAGES[0])])
    assert not [f for f in check_images(observed, SETUP) if f.level]


def test_a_model_for_another_robot_is_reported():
    other = ROBOT.model_copy(update={"name": "other"})
    assert "one trained for openarm" in only("model", setup=replace(SETUP, robot=other), level=Level.WARNING)
    slow = ROBOT.action_space.model_copy(update={"max_speed": 0.1})
    setup = replace(SETUP, robot=ROBOT.model_copy(update={"action_space": slow}))
    assert "0.2 m/s" in only("model", setup=setup)
    assert [f.check for f in check_fit(replace(SETUP, camera_topics=("a", "b"))) if f.level] == ["views"]


@pytest.mark.parametrize(
    ("view", "check"),
    [
        (ModelView(1.1, 2.0, 0.01, 0.2, 0.006), ""),
        (ModelView(1.1, 2.0, None, None, None), ""),
        (ModelView(2.0, 1.1, 0.2, 0.01, 0.006), "upside_down"),
        (ModelView(2.5, 0.9, 0.006, 0.003, 0.006), "upside_down"),
        (ModelView(2.0, 1.1, None, None, None), "upside_down"),
        (ModelView(3.0, 2.9, 0.3, 0.3, 0.006), "latent"),
        (ModelView(1.0, 2.0, 0.09, 0.3, 0.006), "tool_seen"),
        (ModelView(None, None, None, None, None), ""),
    ],
)
def test_images_that_the_model_cannot_interpret_are_reported(view, check):
    assert [f.check for f in check_view(view, "/image") if f.level] == ([check] if check else [])


# -- overlay, files, the command ---------------------------------------------------------------------------------------


def test_the_overlay_projects_points_as_a_pinhole_camera():
    t = MODEL.camera
    below = np.array([t.position]) - [[0, 0, 1.0]]
    assert np.allclose(overlay.project(below, t), [[t.cx, t.cy]], atol=1e-6)
    assert np.isnan(overlay.project(below + [[0, 0, 2.0]], t)).all()
    points = overlay.skeleton(good(), SETUP)
    assert points.shape == (8, 3) and np.allclose(points[0], [0, 0, 0.1])
    drawn = overlay.draw_overlay(picture(), picture(1), points, SETUP)
    assert drawn.shape == (240, 320, 3) and drawn.dtype == np.uint8
    assert overlay.draw_overlay(np.zeros((480, 640, 3), np.uint8), None, None, SETUP).shape == (240, 320, 3)


def test_findings_are_written_to_report_and_summary(tmp_path):
    findings = [ok("a", "x", "y"), error(FindingCode.TOPIC_MISSING, "x <y>", "1", "2", "Do it.")]
    report.write_files(tmp_path / "o", findings, good(), SETUP, [("overlay", picture())])
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert (summary["errors"], summary["warnings"]) == (1, 0)
    assert summary["findings"][1]["advice"] == "Do it." and summary["findings"][1]["code"] == "topic.missing"
    assert [finding["check"] for finding in summary["findings"]] == ["a", "topic"]
    assert summary["messages"]["/image"] == 75
    assert "x &lt;y&gt;" in (tmp_path / "o" / "report.html").read_text()
    assert (tmp_path / "o" / "overlay.jpg").is_file()
    assert report.verdict(findings) == "1 error, 0 warnings"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        report.write_files(tmp_path / "file", findings, good(), SETUP, [])


@pytest.mark.parametrize("command", [["doctor"], ["calibrate", "camera"]])
def test_doctor_and_calibrate_have_help(command):
    done = CliRunner().invoke(cli.app, [*command, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output


def test_a_rate_needs_more_than_two_messages():
    assert message_rate(stream(10, 0.2), 5.0) == pytest.approx(0.4)
    assert message_rate(stream(10, 5.0), 5.0) == pytest.approx(10.0)
