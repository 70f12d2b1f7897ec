"""The demo's summary, page and video, from a run made up here."""

import json
import re
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from jepa_ros.demo import run as demo
from jepa_ros.demo.record import DemoRecord, Frame, GoalRun, PlanSeen, summarise
from jepa_ros.demo.report import draw_graph, write_demo_video, write_report
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import NodeLog
from jepa_ros.reporting.plots import figure_to_svg
from jepa_ros.reporting.summary import write_summary

KEYS = {
    "goals": int, "goal_set_hash": str, "reached": int, "tolerance_m": float, "start_distance_m": {"min", "median"},
    "final_distance_m": {"p50", "p90", "max"}, "latency_ms": {"p50", "p99", "max"}, "plan_ms": {"p50", "p99"},
    "deadline_ms": float, "deadline_misses": int, "plans": int, "replan_hz": float, "frames": {"sent", "encoded"},
    "rmw": str, "distro": str, "model": str, "seed": int, "processes": list, "wall_s": float,
}  # fmt: skip
TOPICS = {
    "image": {"type": "sensor_msgs/msg/Image", "from": ["simulator"], "to": ["camera"]},
    "a<b": {"type": "x/msg/Y", "from": ["camera"], "to": []},
}
START = 1_700_000_000.0


def jpeg(shade):
    return cv2.imencode(".jpg", np.full((240, 320, 3), shade, np.uint8))[1].tobytes()


@pytest.fixture
def record():
    """Two goals of two seconds, the second one missed; ten plans, one of them late, one that never got through."""
    rng = np.random.default_rng(0)
    record = DemoRecord(2, 0, "openarm_reach", "openarm", 0.03, 1.0, 15.0, goal_set_hash="abc", deadline_ms=200.0)
    for index, end in ((0, 0.01), (1, 0.08)):
        times = list(np.arange(0, 2, 1 / 15))
        goal = GoalRun(index, rng.integers(0, 255, (240, 320, 3), dtype=np.uint8), np.zeros(3))
        goal.times, goal.distances = times, list(np.linspace(0.2 + 0.1 * index, end, len(times)))
        goal.reached, goal.final_frame = end < 0.03, jpeg(90)
        record.goals.append(goal)
        record.frames += [
            Frame(
                START + 2 * index + t,
                jpeg(50),
                index,
                d,
                {"openarm_right_joint1": 0.3 * t},
                np.array([0.2, -0.2, 0.478]),
            )
            for t, d in zip(times, goal.distances, strict=True)
        ]
    record.images = [(round((START + i / 15) * 1e9), i + 1) for i in range(60)]
    record.latents = [(stamp, n) for stamp, n in record.images if n > 5]
    record.latents = [(stamp, i) for i, (stamp, n) in enumerate(record.latents) if n != 20]
    for i in range(10):
        source = START + 0.4 * i
        received = source + (0.28 if i == 4 else 0.1)
        record.plans.append(PlanSeen(i + 1, source, received - 0.001, received))
        record.plan_goals = {**record.plan_goals, i + 1: i // 5}
        record.iterations = {**record.iterations, i + 1: 4}
        record.plan_ms = {**record.plan_ms, i + 1: 50.0 + i}
        if i != 9:
            record.statuses.append((received + 0.002, i + 1))
            record.windows.append(received + 0.0018)
    record.topics, record.processes = TOPICS, [{"name": "camera", "pid": 1}, {"name": "simulator", "pid": 2}]
    record.rmw, record.distro, record.wall_s = "rmw_fastrtps_cpp", "jazzy", 12.5
    return record


def test_the_summary_has_every_documented_key_and_the_right_values(record, tmp_path):
    summary = json.loads(write_summary(tmp_path / "summary.json", summarise(record)).read_text())
    for key, kind in KEYS.items():
        if isinstance(kind, set):
            assert kind <= set(summary[key])
        else:
            assert isinstance(summary[key], kind), key
    assert (summary["goals"], summary["reached"], summary["deadline_misses"], summary["plans"]) == (2, 1, 1, 10)
    assert summary["latency_ms"]["p50"] == pytest.approx(101.8, abs=0.01)
    assert summary["plans_used"] == 9
    assert summary["gate_ms"]["max"] == pytest.approx(2.8, abs=0.01)
    assert summary["replan_hz"] == pytest.approx(8 / (8 * 0.4), rel=0.1)
    assert summary["start_distance_m"] == pytest.approx({"min": 0.2, "median": 0.25})
    assert summary["final_distance_m"]["max"] == pytest.approx(0.08)


def test_frames_without_a_latent_are_counted_as_lost(record):
    lost = 2  # the model's own numbers show how many latents it sent, whether or not they came here
    record.latents = [(stamp, n) for n, (stamp, _) in enumerate(record.images[5:30] + record.images[30 + lost :])]
    assert summarise(record)["frames"] == {"sent": 55, "encoded": 53}


def test_a_run_that_ended_before_the_first_goal_has_a_summary_and_a_page(tmp_path):
    record = DemoRecord(20, 0, "m", "openarm", 0.03, 1.0, 15.0, ended="camera ended with code 1: <no> camera")
    summary = summarise(record)
    write_summary(tmp_path / "summary.json", summary)
    text = write_report(record, summary, tmp_path / "report.html").read_text()
    assert "&lt;no&gt; camera" in text
    assert write_demo_video(record, tmp_path / "demo.mp4") == 0
    assert summary["latency_ms"] == {"p50": None, "p99": None, "max": None}


def test_the_report_shows_every_goal_image_with_its_final_frame(record, tmp_path):
    text = write_report(record, summarise(record), tmp_path / "report.html").read_text()
    assert text.count("data:image/jpeg") == 6  # the cell, the goal, the last camera image
    assert "1: reached, 1.0 cm" in text and "<b>not reached</b>, 8.0 cm" in text
    assert text.count("<svg") >= 5  # distances, three latencies, the graph
    assert not re.search(r'(src|href)="(?!data:|#)', text)


def test_the_page_plays_and_links_the_video(record, tmp_path):
    summary = summarise(record)
    page = write_report(record, summary, tmp_path / "report.html", "demo.mp4").read_text()
    assert '<video controls preload="metadata" src="demo.mp4"' in page and '<a href="demo.mp4">' in page
    assert "<video" not in write_report(record, summary, tmp_path / "report.html").read_text()


def test_the_demo_prints_its_result_and_the_paths_in_80_columns(record, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record.ended = "interrupted"
    summary, paths = demo.write_results(record, Path("out"))
    demo._print_summary(record, summary, paths)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo: 1 of 2 goals reached" and max(map(len, lines)) <= 80
    results = [" ".join(line.split()) for line in lines]
    assert "deadline misses 1 of 10 plans" in results
    assert "ended early interrupted, 2 of 2 goals started" in results
    assert lines[-3:] == ["wrote out/summary.json", "      out/report.html", "      out/demo.mp4"]


def test_a_second_run_cannot_use_the_directory_of_a_running_one(tmp_path):
    first = NodeLog(tmp_path / "out" / "nodes.log")
    first.write("camera", "a line")
    with pytest.raises(InputError, match="another run is writing there; give another directory"):
        NodeLog(tmp_path / "out" / "nodes.log")
    assert "a line" in (tmp_path / "out" / "nodes.log").read_text()
    first.close()
    NodeLog(tmp_path / "out" / "nodes.log").close()
    assert not (tmp_path / "out" / "nodes.log").read_text()


def test_the_video_shows_each_goal_with_its_inset(record, tmp_path):
    assert write_demo_video(record, tmp_path / "demo.mp4") == len(record.frames) // 2
    with av.open(str(tmp_path / "demo.mp4")) as video:
        [stream] = video.streams
        frame = next(video.decode(stream)).to_ndarray(format="rgb24")
        assert float(stream.average_rate) == pytest.approx(7.5, abs=0.01)
    assert frame.shape == (360, 720, 3)
    assert (
        frame[200:320, 500:700].std() > 20 > frame[20:140, 500:700].std()
    )  # the goal is noise, the camera's image grey
    assert frame[60:, :470].std() > 20, "the cell is drawn"


def test_without_joint_states_the_video_shows_the_camera_image(record, tmp_path):
    record.frames = [replace(frame, joints=None) for frame in record.frames]
    assert write_demo_video(record, tmp_path / "demo.mp4") == len(record.frames) // 2
    with av.open(str(tmp_path / "demo.mp4")) as video:
        frame = next(video.decode(video.streams[0])).to_ndarray(format="rgb24")
    assert frame[60:, :470].std() < 20, "the camera's image is grey"
    assert write_report(record, summarise(record), tmp_path / "report.html").read_text().count("data:image/jpeg") == 4


def test_names_in_the_graph_drawing_are_escaped():
    figure = draw_graph(TOPICS, ["simulator", "camera"])
    boxes = [text.get_text() for text in figure.axes[0].texts if text.get_bbox_patch() is not None]
    assert sorted(boxes) == ["a<b  (Y)", "camera", "camera", "image  (Image)", "simulator"]
    svg = figure_to_svg(figure, "graph")
    assert "a&lt;b" in svg and "a<b" not in svg
    assert figure_to_svg(draw_graph({}), "empty").startswith("<svg")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"goals": 0}, "goals: expected at least 1, found 0"),
        ({"seed": -1}, "seed: expected 0 or more, found -1"),
        ({"model": "no_such_model"}, "model 'no_such_model'"),
        ({"robot": "r2d2"}, "robot 'r2d2'"),
    ],
)
def test_invalid_options_are_refused_before_anything_starts(given, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        demo.run(**{"out": tmp_path / "out", "model": str(tmp_path), **given})
    assert not (tmp_path / "out").exists()


def test_a_file_as_output_directory_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="expected a directory, found a file"):
        demo.run(out=tmp_path / "out", model=str(tmp_path))
