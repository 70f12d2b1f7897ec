"""A small model, a small bag of the simulated arm, and the command that evaluates the model on the bag."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from typer.testing import CliRunner

from helpers import reach_bag, sim_arm, small_models
from jepa_ros import cli
from jepa_ros.bags.typestore import typestore
from jepa_ros.world_model.checkpoint import build_model, save_checkpoint
from jepa_ros.world_model.config import ProbeConfig
from jepa_ros.world_model.heads import Probe

TICKS = 24
FRAMES = len(reach_bag.SPLITS) * (TICKS + 1)
IMAGES, JOINTS, EXECUTED = "/image/compressed", "/joint_states", "/executed"
QUICK = ("--plan-states", 0)
VARIES = ("timing", "wall_s", "started")


def write_model(directory, seed=0, **changes):
    """Write a checkpoint of random weights for the arm with a tool probe; return the directory."""
    robot = sim_arm.robot()
    probe = {"name": "tool", "dimension": 3, "error_m": 0.01}
    config = small_models.config(tuple(robot.joints), tuple(robot.gripper), probes=(ProbeConfig(**probe),), **changes)
    torch.manual_seed(seed)
    weights = torch.randn(config.latent_shape[-1] + 1, 3) * 0.1
    probes = {"tool": Probe("tool", weights, 0.01, config.latent_shape)}
    model, policy = build_model(config, directory)
    with torch.no_grad():  # an untrained model ignores actions
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    save_checkpoint(directory, config, model, policy, probes=probes)
    return directory


def write_bag(path, **options):
    """Write a bag of 6 episodes of 2.4 s at 10 Hz."""
    return reach_bag.write(path, ticks=TICKS, **options)


def run(*arguments):
    """Run the command `jepa_ros evaluate bag ...` in this process."""
    return CliRunner().invoke(cli.app, ["evaluate", "bag", *map(str, arguments)])


def evaluate(bags, model, out, *options, code=0):
    """Evaluate a model on bags; return the summary and the command's own lines on stderr."""
    bags = bags if isinstance(bags, (list, tuple)) else [bags]
    done = run(*bags, "--model", model, "--out", out, "--plan-states", 2, "--horizon", 2, *options)
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    lines = [line.removeprefix("jepa_ros: ") for line in done.stderr.splitlines() if line.startswith("jepa_ros: ")]
    path = out / "summary.json"
    return (json.loads(path.read_text()) if path.exists() else None), lines


def evaluate_unchanged(path, model, tmp_path, *options, code=0):
    """Evaluate one bag without plans; check that the bag is unchanged and that each line names it."""
    before = contents(path)
    summary, lines = evaluate(path, model, tmp_path / "out", *QUICK, *options, code=code)
    assert contents(path) == before
    for line in lines:
        assert line.startswith(f"bag {path}: ") and len(line) > len(f"bag {path}: ") + 10, line
    return summary, lines


def same(summary):
    """Return what must be equal in equal runs."""
    return {k: v for k, v in summary.items() if k not in VARIES}


def copy(
    source, target, change=lambda topic, kind, t, data: [(topic, kind, t, data)], plugin=StoragePlugin.MCAP, **kwargs
):
    """Write a changed copy of a bag. change: from a message to those that replace it. kwargs: mode of compression."""
    types = typestore()
    with Reader(source) as reader:
        writer = Writer(target, version=9, storage_plugin=plugin)
        if kwargs:
            writer.set_compression(kwargs["mode"], kwargs["format"])
        with writer:
            made = {}
            for connection, t, data in reader.messages():
                for topic, kind, when, what in change(connection.topic, connection.msgtype, t, data):
                    if (topic, kind) not in made:
                        made[topic, kind] = writer.add_connection(topic, kind, typestore=types)
                    writer.write(made[topic, kind], when, what)
    return target


def split(bag, folder, count=3):
    """Write a bag of several files, numbered across 9 and 10, with metadata.yaml."""
    folder.mkdir()
    with Reader(bag) as reader:
        begin, length = reader.start_time, reader.duration
    edges = [begin + length * k // count for k in range(count + 1)]
    names = [f"part_{9 + k}.mcap" for k in range(count)]
    for name, low, high in zip(names, edges[:-1], edges[1:], strict=True):

        def part(topic, kind, t, data, low=low, high=high):
            return [(topic, kind, t, data)] if low <= t < high else []

        copy(bag, folder / "one", part)
        (folder / "one" / "one.mcap").rename(folder / name)
        shutil.rmtree(folder / "one")
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["relative_file_paths"] = names
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return folder


def without(*topics):
    """For `copy`: leave out these topics."""
    return lambda topic, kind, t, data: [] if topic in topics else [(topic, kind, t, data)]


def edited(wanted, edit):
    """For `copy`: change the messages of one topic with `edit`."""
    types = typestore()

    def change(topic, kind, t, data):
        if topic == wanted:
            message = types.deserialize_cdr(data, kind)
            edit(message)
            data = types.serialize_cdr(message, kind)
        return [(topic, kind, t, data)]

    return change


def stamps(path, topic, kind):
    """Return the header stamps in ns of a topic in a bag or an mcap file, in the order of recording."""
    with Reader(path) as reader:
        found = [c for c in reader.connections if c.topic == topic]
        messages = [typestore().deserialize_cdr(data, kind) for _, _, data in reader.messages(found)]
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def contents(folder):
    """Return the bytes and the modification time of a file, or of every file in a folder."""
    files = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files if p.is_file()}


def clone(bag, target):
    """Copy a bag so that a test may damage it; return its one recording."""
    shutil.copytree(bag, target)
    (recording,) = [p for p in target.iterdir() if p.suffix in (".mcap", ".db3")]
    return recording


def rows(out):
    """Read the table of frames."""
    from pyarrow import parquet

    return parquet.read_table(out / "frames.parquet").to_pylist()


def finite(values):
    return np.array([v for v in values if v is not None], float)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bag") / "play")


@pytest.fixture(scope="module")
def expected(bag, model, tmp_path_factory):
    summary, _ = evaluate(bag, model, tmp_path_factory.mktemp("out") / "d", *QUICK)
    return summary["together"]
