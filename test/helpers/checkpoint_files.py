"""Checkpoints, a share directory and a bag of a robot of two slides, for the tests of `jepa_ros models`."""

import torch
import yaml
from typer.testing import CliRunner

from helpers import small_dino_wm, small_models
from helpers.episode_bags import FIRST, write_episode
from jepa_ros import cli
from jepa_ros.bags.writer import EpisodeWriter
from jepa_ros.resources import config_path
from jepa_ros.world_model.checkpoint import build_model, save_checkpoint

CARD = """# tiny

| figure | value |
|---|---:|
| probe R² | 0.99 |
| a \\| b | 1 |

Text | with a bar.

| seed | reached | of |
| :-- | --- | --- |
| 1 | 9 |
"""

_JOINT = """<joint name="{name}" type="prismatic"><parent link="{parent}"/><child link="{child}"/><axis xyz="{axis}"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint>"""
URDF = "".join(
    [
        '<robot name="slides"><link name="world"/><link name="x"/><link name="tool"/>',
        _JOINT.format(name="a", parent="world", child="x", axis="1 0 0"),
        _JOINT.format(name="b", parent="x", child="tool", axis="0 1 0"),
        "</robot>",
    ]
)
"""The tool is at (a, b) m."""

ROBOT = {
    "name": "slides",
    "joints": ["a", "b"],
    "base_frame": "world",
    "tool_frame": "tool",
    "controllers": [
        {"name": "c", "type": "joint_trajectory_controller/JointTrajectoryController", "joints": ["a", "b"]}
    ],
    "action_space": {
        "type": "planar_velocity",
        "max_speed": 0.2,
        "max_acceleration": 0.8,
        "height": 0.0,
        "workspace": [[-1, -1], [1, -1], [1, 1], [-1, 1]],
    },
    "joint_limits": {"a": {"max_velocity": 1.0}, "b": {"max_velocity": 1.0}},
    "position_margin": 0.0,
    "home": {"a": 0.0, "b": 0.0},
    "gripper": ["g"],
    "camera": {"frame_id": "camera", "topic": "image"},
}


def run(*arguments):
    """The command `jepa_ros models ...` in this process."""
    return CliRunner().invoke(cli.app, ["models", *map(str, arguments)])


def refused(*arguments):
    """The one line on stderr of a command that exits with 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("jepa_ros: ") and not result.stdout, result.output
    return lines[0]


def write_model(directory, seed=0, **changes):
    """A checkpoint with random weights; the directory."""
    config = small_models.config(**changes)
    torch.manual_seed(seed)
    save_checkpoint(directory, config, *build_model(config, directory))
    return directory


def write_patch_model(directory):
    """A checkpoint of family dino_wm beside its frozen encoder; the directory."""
    model = small_dino_wm.from_directory(directory)
    save_checkpoint(directory, small_dino_wm.made_config(directory, "adaln"), model, None)
    return directory


def share(root, monkeypatch):
    """The package's own files are in `root` from now on, with the robot slides; what is installed is in root/home."""
    from jepa_ros import resources

    (root / "msg").symlink_to(resources.message_definitions())
    monkeypatch.setattr(resources, "_source_root", lambda: root)
    monkeypatch.setenv("JEPA_ROS_HOME", str(root / "home"))
    config_path("models").mkdir(parents=True)
    config_path("robots").mkdir()
    write_robot(config_path("robots", "slides.yaml"))
    return root


def write_robot(path, **changes):
    path.write_text(yaml.safe_dump(ROBOT | changes))
    return path


def write_bag(path, splits, ticks=10, urdf=URDF):
    """A bag of an episode for each split; pictures tell the time, and so does the tool's place."""
    with EpisodeWriter(path, "camera", "world") as bag:
        bag.robot_description(FIRST, urdf)
        for number, split in enumerate(splits):
            write_episode(bag, number, split, ticks, FIRST + number * 10 * 10**9)
    return path
