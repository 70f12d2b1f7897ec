"""The cache that `jepa_ros data build` makes: where its frames come from, resumed, added to, split, damaged."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import foreign_bags, reach_bag
from helpers.foreign_datasets import build, mapping_file
from jepa_ros.datasets.build import build_dataset
from jepa_ros.datasets.store import Dataset, choose_split, is_dataset
from jepa_ros.errors import InputError


def test_the_cache_stores_bag_and_stamp_of_each_frame(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", skip=lambda topic, t: "image" in topic and t < 0.48)
    data, _ = build(tmp_path, bag)
    (entry,) = data.index.episodes
    assert (data.rows(entry, "pictures")[:, 0] == 2 * np.arange(entry.frames)).all(), "every second of 20 Hz"
    assert (data.rows(entry, "stamps") == foreign_bags.FIRST + 5 * 10**8 + 10**8 * np.arange(entry.frames)).all()
    assert data.index.bags == (str(bag),) and is_dataset(data.path) and not is_dataset(bag)


def test_the_number_of_workers_does_not_change_the_result(tmp_path):
    bags = many(tmp_path, 1)
    for workers in (1, 5):
        assert build_dataset(bags=bags, out=tmp_path / f"data{workers}", size=16, workers=workers) == 0
    one, other = (without_times(foreign_bags.tree(tmp_path / f"data{workers}")) for workers in (1, 5))
    assert one == other and len(one) > 8


def without_times(digests):
    return {name: d for name, d in digests.items() if name not in ("summary.json", "report.html")}


def many(tmp_path, count=4):
    return [reach_bag.write(tmp_path / f"bag{k}", seed=k) for k in range(count)]


def shards_of(out):
    """When each shard that is there was made."""
    found = (p for p in out.glob("shards/*/shard.json") if p.parent.suffix != ".partial")
    return {p: p.stat().st_mtime_ns for p in found}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_resumed_build_gives_the_same_bytes(tmp_path, how):
    bags, out = many(tmp_path, 12), tmp_path / "data"  # so many that the signal finds it at work
    assert build_dataset(bags=bags, out=tmp_path / "whole", size=16) == 0
    command = [
        sys.executable,
        "-m",
        "jepa_ros.cli",
        "data",
        "build",
        *map(str, bags),
        "--out",
        str(out),
        "--size",
        "16",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while not shards_of(out) and process.poll() is None and time.monotonic() < end:
        os.sched_yield()
    process.send_signal(how)
    code = process.wait(60)
    assert code in (-signal.SIGKILL, 130) and b"Traceback" not in process.stderr.read()
    done = shards_of(out)
    assert done and not (out / "dataset.json").exists()
    half = next(p for p in (tmp_path / "whole" / "shards").iterdir() if not (out / "shards" / p.name).exists())
    (out / "shards" / f"{half.name}.partial").mkdir(exist_ok=True)
    (out / "shards" / f"{half.name}.partial" / "frames.npy").write_bytes(b"half of it")
    assert build_dataset(bags=bags, out=out, size=16) == 0
    assert shards_of(out).items() >= done.items(), "what was done is not done again"
    assert without_times(foreign_bags.tree(out)) == without_times(foreign_bags.tree(tmp_path / "whole"))


def test_a_bag_can_be_added_and_changed_options_are_refused(tmp_path):
    bags, out = many(tmp_path, 2), tmp_path / "data"
    assert build_dataset(bags=bags[:1], out=out, size=16) == 0
    assert build_dataset(bags=bags, out=out, size=16) == 0
    assert len(Dataset(out).index.shards) == 2 and len(Dataset(out).index.episodes) == 12
    with pytest.raises(InputError, match=r"expected the options of the dataset that is there, found other \['size'\]"):
        build_dataset(bags=bags, out=out, size=32)
    with pytest.raises(InputError, match="expected different ones, found .* with the same content"):
        build_dataset(bags=[bags[0], bags[0]], out=out, size=16)


def test_source_bags_are_not_modified(tmp_path):
    bags = many(tmp_path, 1)
    before = foreign_bags.tree(bags[0])
    assert build_dataset(bags=bags, out=tmp_path / "data", size=16) == 0
    assert foreign_bags.tree(bags[0]) == before


def test_splits_are_by_bag_or_by_episode_if_there_is_one_bag(tmp_path):
    mapping = mapping_file(tmp_path)

    def skip(topic, t):
        return "image" in topic and any(low < t < low + 0.4 for low in (0.72, 1.52, 2.32, 3.12))

    bags = [foreign_bags.write(tmp_path / f"bag{k}", skip=skip, seconds=3.0 + 0.1 * k) for k in range(4)]
    build_dataset(bags=bags, out=tmp_path / "several", mapping=mapping, size=16)
    index = Dataset(tmp_path / "several").index
    by_bag = {e.shard: {o.split for o in index.episodes if o.shard == e.shard} for e in index.episodes}
    assert index.split_by == "bag" and by_bag == {0: {"train"}, 1: {"train"}, 2: {"val"}, 3: {"test"}}
    build_dataset(bags=bags[:1], out=tmp_path / "one", mapping=mapping, size=16)
    index = Dataset(tmp_path / "one").index
    assert index.split_by == "episode"
    assert [e.split for e in index.episodes] == ["train"] * (len(index.episodes) - 2) + ["val", "test"]


@pytest.mark.parametrize("count", [3, 5, 19, 20, 21, 400])
def test_every_split_is_non_empty(count):
    found = [choose_split(k, count) for k in range(count)]
    assert found.count("val") == found.count("test") == max(1, count // 20) and found.count("train") > 0


def test_a_corrupted_cache_is_refused_with_the_file_name(tmp_path):
    assert build_dataset(bags=many(tmp_path, 1), out=tmp_path / "data", size=16) == 0
    states = next(tmp_path.glob("data/shards/*/states.npy"))
    content = states.read_bytes()
    for damaged, words in ((content[:200], "expected an array"), (b"", "expected an array")):
        states.write_bytes(damaged)
        with pytest.raises(InputError, match=f"dataset {states}: {words}"):
            Dataset(tmp_path / "data")
    np.save(states, np.zeros((3, 3), np.float32))
    with pytest.raises(InputError, match=f"dataset {states}: expected .* found"):
        Dataset(tmp_path / "data")
    states.write_bytes(content)
    (tmp_path / "data" / "dataset.json").write_text('{"schema_version": 7}')
    with pytest.raises(InputError, match="dataset.json: schema_version"):
        Dataset(tmp_path / "data")
