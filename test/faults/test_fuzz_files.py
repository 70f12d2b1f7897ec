"""Every reader of files from outside, with hundreds of damaged ones: each is read, or refused in one line."""

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from helpers import official_lewm, official_vjepa2, sim_arm
from helpers.checkpoint_files import write_model, write_patch_model
from helpers.episode_bags import FIELDS, SPACE, write_bag
from helpers.file_damage import changed, damaged, pickled
from helpers.training_recipes import TINY
from jepa_ros.bags.cameras import read_camera, read_frame_runs
from jepa_ros.bags.reader import read_robot_description
from jepa_ros.bags.typestore import typestore
from jepa_ros.bringup.nodes import ARGUMENT_PARAMETERS, check_params_file
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.errors import InputError
from jepa_ros.nodes.planner.parameters import PARAMETERS
from jepa_ros.resources import config_path
from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.urdf import RobotDescription
from jepa_ros.training.recipe import read_recipe
from jepa_ros.world_model.checkpoint import verify
from jepa_ros.world_model.importers.lewm import import_lewm
from jepa_ros.world_model.importers.vjepa2_ac import import_vjepa2_ac

LONGEST = 5.0  # s of a processor that one file may take


class Tally:
    """How many files were read and how many refused."""

    def __init__(self) -> None:
        self.read = self.refused = 0

    def __call__(self, read, *paths: Path):
        """Fails with a copy of what was read where anything else happens than reading or a refusal in one line."""
        began = time.process_time()
        try:
            read()
            self.read += 1
        except InputError as error:
            text = str(error)
            assert text.isprintable() and 15 < len(text) < 2100, text
            self.refused += 1
        except BaseException as error:
            for path in paths:
                kept = Path("runs/faults/files") / path.name
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(path, kept, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, kept)
            raise AssertionError(f"{type(error).__name__} on {kept}: {error}") from error
        assert time.process_time() - began < LONGEST, paths


@pytest.fixture
def tally():
    return Tally()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def each(path: Path, count: int, rng, values=None, dump=json.dumps):
    """`count` times: damage the file at `path`, in its bytes or in the values that it says."""
    whole = path.read_bytes()
    for k in range(count):
        if values is not None and k % 3:
            text = dump(changed(values, rng))
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            path.write_bytes(damaged(whole, rng))
        yield k
    path.write_bytes(whole)


@pytest.mark.parametrize("write", [write_model, write_patch_model])
def test_damaged_checkpoints_are_read_or_refused_in_one_line(tmp_path, tally, rng, write):
    model = write(tmp_path / "m")
    values = json.loads((model / "config.json").read_text())
    for name, said in (("config.json", values), ("model.safetensors", None)):
        for _ in each(model / name, 150 if write is write_model else 60, rng, said):
            tally(lambda: verify(model), model)
    tally(lambda: verify(model), model)
    assert tally.read > 5 and tally.refused > 50


def test_damaged_robot_files_are_read_or_refused_in_one_line(tmp_path, tally, rng):
    path, urdf = tmp_path / "r.yaml", sim_arm.scene().urdf
    shutil.copy(config_path("robots", "openarm.yaml"), path)
    values = yaml.safe_load(path.read_text())

    def read():
        robot = load_robot(path)
        JointLimits.from_robot(robot, urdf)
        Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)

    for _ in each(path, 300, rng, values, yaml.safe_dump):
        tally(read, path)
    assert tally.read > 5 and tally.refused > 100


@pytest.mark.parametrize(
    "text",
    [
        "x: " + "[" * 5000,
        "- " * 5000 + "x",
        "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrst")),
        "a: &a [*a]",
        "day: 2001-99-99",
        "n: 0x" + "f" * 9000,
        "!!python/object/apply:os.system ['touch harm']",
        "\ufeff\x01",
        "{? [1]: 2, ? {}: 3}",
    ],
)  # fmt: skip
def test_malicious_yaml_is_refused(tmp_path, tally, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    for read in (load_robot, read_recipe, check_params_file):
        tally(lambda read=read: read(path), path)
    assert tally.read == 0


def test_malicious_json_is_refused(tmp_path, tally):
    model = write_model(tmp_path / "m")
    for text in (
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 10_000,
        '{"name": NaN}',
        '{"name": "\\ud800"}',
        "x" * 5_000_000,
    ):
        (model / "config.json").write_text(text)
        tally(lambda: verify(model), model)
    assert tally.read == 0


def test_damaged_recipes_are_read_or_refused_in_one_line(tmp_path, tally, rng):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(TINY))
    for _ in each(path, 300, rng, TINY, yaml.safe_dump):
        tally(lambda: read_recipe(path), path)
    assert tally.read > 5 and tally.refused > 100


def test_damaged_parameter_files_are_read_or_refused_in_one_line(tmp_path, tally, rng):
    path = tmp_path / "p.yaml"
    own = {p.name: p.default for p in PARAMETERS if p.name not in ARGUMENT_PARAMETERS}
    values = {"/**/planner": {"ros__parameters": own}}
    values["/**"] = {"ros__parameters": {"use_sim_time": False, "tree": [1, 2.5, "x"]}}
    path.write_text(yaml.safe_dump(values))
    check_params_file(path)
    for _ in each(path, 300, rng, values, yaml.safe_dump):
        tally(lambda: check_params_file(path), path)
    assert tally.read > 50 and tally.refused > 50, (tally.read, tally.refused)


def test_damaged_robot_descriptions_are_read_or_refused_in_one_line(tmp_path, tally, rng):
    path, robot = tmp_path / "r.urdf", sim_arm.robot()
    whole = sim_arm.scene().urdf
    words = whole.split('"')

    def mutated(k):
        if k % 2:
            return damaged(whole.encode(), rng).decode("utf-8", "replace")
        some = list(words)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(some) // 2)) * 2 + 1  # a value between quotes
            some[at] = str(rng.choice(["", "nan", "inf", "-1", "1e308", "0 0 0", "x", "world", some[1], some[5]]))
        return '"'.join(some)

    def read():
        text = path.read_text()
        RobotDescription.from_urdf(text)
        JointLimits.from_robot(robot, text)
        kinematics = Kinematics(text, robot.joints, robot.tool_frame, robot.base_frame)
        Clearance.from_robot(robot, text, kinematics)

    for k in range(300):
        path.write_text(mutated(k))
        tally(read, path)
    assert tally.read > 5 and tally.refused > 30


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    episodes = [{"split": s, "ticks": 8} for s in ("train", "val")]
    return write_bag(tmp_path_factory.mktemp("bag") / "b", episodes)


def as_sqlite(bag: Path, to: Path) -> Path:
    with Reader(bag) as reader, Writer(to, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        made = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=typestore()) for c in reader.connections}
        for connection, stamp, raw in reader.messages():
            writer.write(made[connection.id], stamp, raw)
    return to


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_damaged_bags_are_read_or_refused_in_one_line(bag, tmp_path, tally, rng, storage):
    copy = tmp_path / "b"
    (shutil.copytree if storage == "mcap" else as_sqlite)(bag, copy)
    metadata = yaml.safe_load((copy / "metadata.yaml").read_text())
    (recording,) = [p for p in copy.iterdir() if p.name != "metadata.yaml"]

    def read():
        read_robot_description(copy)
        read_camera(copy)
        list(read_episodes(copy, SPACE, FIELDS, 16))
        read_frame_runs(copy, ["/image"], 16)

    for name, said, count in ((recording.name, None, 150), ("metadata.yaml", metadata, 100)):
        for _ in each(copy / name, count, rng, said, yaml.safe_dump):
            tally(read, copy)
    assert tally.read > 5 and tally.refused > 50


def test_bags_with_damaged_messages_are_read_or_refused_in_one_line(bag, tmp_path, tally, rng):
    """Whole bags whose messages are damaged: their bytes, one message in each bag of each type in turn."""
    kinds = ("CompressedImage", "JointState", "Action", "Episode", "CameraInfo", "TFMessage")
    with Reader(bag) as reader:
        messages = [(c.topic, c.msgtype, t, raw) for c, t, raw in reader.messages()]
    for k in range(150):
        copy = tmp_path / f"{k}"
        victims = [i for i, m in enumerate(messages) if m[1].endswith(kinds[k % len(kinds)])]
        victim = int(rng.choice(victims))
        with Writer(copy, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            made = {}
            for i, (topic, kind, stamp, raw) in enumerate(messages):
                if topic not in made:
                    made[topic] = writer.add_connection(topic, kind, typestore=typestore())
                writer.write(made[topic], stamp, damaged(bytes(raw), rng) if i == victim else raw)

        def read(copy=copy):
            read_camera(copy)
            list(read_episodes(copy, SPACE, FIELDS, 16))
            read_frame_runs(copy, ["/image"], 16)

        tally(read, copy)
    assert tally.read > 5 and tally.refused > 5


def import_into(tmp_path, read):
    """An import; what is refused leaves nothing behind."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    before = sorted(tmp_path.iterdir())
    try:
        read(out)
        verify(out)
    except InputError:
        assert sorted(p for p in tmp_path.iterdir() if p != out) == before
        assert not out.exists() or (out / "model.safetensors").exists(), "half an import"
        raise


@pytest.mark.parametrize("name", ["weights.pt", "model.safetensors"])
def test_damaged_lewm_files_are_imported_or_refused_in_one_line(tmp_path, tally, rng, name):
    source = official_lewm.write(tmp_path / "theirs", official_lewm.foreign(), name=name)
    settings = source.with_name("config.json")
    for path, said in ((source, None), (settings, official_lewm.SETTINGS)):
        for _ in each(path, 100, rng, said):
            tally(lambda: import_into(tmp_path, lambda out: import_lewm(source, out)), source.parent)
    assert tally.read > 5 and tally.refused > 20


def test_damaged_vjepa2_ac_files_are_imported_or_refused_in_one_line(tmp_path, tally, rng):
    source = official_vjepa2.write(tmp_path / "official.pt")
    for _ in each(source, 60, rng):
        tally(lambda: import_into(tmp_path, lambda out: import_vjepa2_ac(source, out)), source)
    held = torch.load(source, weights_only=True)
    for _ in range(60):
        torch.save(changed(held, rng), source)
        tally(lambda: import_into(tmp_path, lambda out: import_vjepa2_ac(source, out)), source)
    assert tally.read > 5 and tally.refused > 20


def test_pickles_are_never_loaded(bag, tmp_path, tally):
    marker = tmp_path / "harm"
    model, harm = write_model(tmp_path / "m"), pickled(marker)
    for name in ("config.json", "model.safetensors"):
        before = (model / name).read_bytes()
        (model / name).write_bytes(harm)
        tally(lambda: verify(model))
        (model / name).write_bytes(before)
    for name in ("a.pt", "a.ckpt", "a.safetensors", "a.yaml"):
        path = tmp_path / name
        path.write_bytes(harm)
        for read in (
            lambda p: import_lewm(p, tmp_path / "out"),
            lambda p: import_vjepa2_ac(p, tmp_path / "out"),
            verify,
        ):
            tally(lambda read=read, path=path: read(path))
        for read in (load_robot, read_recipe, check_params_file):
            tally(lambda read=read, path=path: read(path))
    copy = tmp_path / "b"
    shutil.copytree(bag, copy)
    for path in copy.iterdir():
        before = path.read_bytes()
        path.write_bytes(harm)
        tally(lambda: list(read_episodes(copy, SPACE, FIELDS, 16)))
        path.write_bytes(before)
    assert tally.read == 0 and not marker.exists()
