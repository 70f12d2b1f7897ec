"""Row 29: the disk becomes full while recording: what was recorded is readable, and control goes on."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers.commands import command
from helpers.nodes import ROOT, environment
from jepa_ros.bags import writer
from jepa_ros.bags.reader import read_robot_description
from jepa_ros.bags.writer import DiskFull, EpisodeWriter
from jepa_ros.collecting import simulated as collect
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.robot.config import load_robot
from jepa_ros.sim.cell import make_action_space

pytestmark = [
    pytest.mark.fault(29),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk"),
]


@pytest.fixture
def disk(tmp_path):
    """disk(megabytes) -> a folder on a disk of that size."""
    made = []

    def _disk(megabytes: int):
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], check=False)
        if done.returncode:
            pytest.skip("a small disk cannot be mounted here")
        made.append(folder)
        return folder

    yield _disk
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def readable(bag):
    """Ticks of the episodes in a bag, of its end too."""
    robot = load_robot("openarm")
    space = make_action_space(robot, read_robot_description(bag), collect.TICK_S)
    return [len(e.actions) for e in read_episodes(bag, space, (tuple(robot.joints), ()), 16)]


def test_on_a_full_disk_collect_keeps_the_finished_episodes(disk):
    out = disk(24) / "play"
    code, lines = command("collect", "sim", "--out", out, "--episodes", "20", "--workers", "1")
    assert code == 1, lines
    said = [line for line in lines if line.startswith("recording ended early")]
    assert len(said) == 1 and "MB of free disk, found" in said[0] and not any("Traceback" in line for line in lines)
    ticks = readable(out)
    assert ticks and ticks[0] == collect.EPISODE_TICKS and len(ticks) < 20
    assert json.loads((out / "summary.json").read_text())["actions"] >= collect.EPISODE_TICKS
    assert not (out / "parts").exists()


def test_collect_without_disk_space_for_one_episode_is_one_line(disk):
    code, lines = command("collect", "sim", "--out", disk(8) / "play", "--episodes", "1", "--workers", "1")
    assert code == 2 and "MB of free disk, found" in lines[-1] and not any("Traceback" in line for line in lines)


def test_a_bag_is_readable_up_to_the_moment_the_disk_was_full(disk, monkeypatch):
    monkeypatch.setattr(writer, "RESERVED_BYTES", 2_000_000)
    path, written = disk(6) / "b", 0
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with pytest.raises(DiskFull, match="expected 2 MB of free disk, found"), EpisodeWriter(path, "c", "w") as bag:
        for t in range(1000):
            bag.image(1_700_000_000_000_000_000 + t, noise)
            written += 1
    from rosbags.rosbag2 import Reader

    with Reader(path) as reader:
        assert len(list(reader.messages())) == written > 5


def test_the_demo_moves_the_arm_and_says_in_one_line_what_was_kept(disk):
    """The nodes' log, figures, report and video go to a disk that is full: the goal is reached all the same."""
    out = disk(1)
    (out / "ballast").write_bytes(bytes(1_000_000))
    done = subprocess.run(
        [sys.executable, "-m", "jepa_ros.cli", "demo", "--goals", "1", "--headless", "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=300,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("jepa_ros:")]
    assert done.returncode == 2, (done.stdout[-2000:], done.stderr[-2000:])
    assert len(lines) == 1
    if "the results are in" in lines[0]:
        json.loads((out / "summary.json").read_text())
    else:
        assert "expected room for report and video, found" in lines[0]
    assert "Traceback" not in done.stderr + done.stdout
    assert "reached" in done.stdout
    assert shutil.disk_usage(out).free < 100_000
