"""Training data, timed: building from 640 x 480 bags, and training from the cache beside training from memory.

    .venv/bin/python test/benchmarks/data.py [--pictures 1800] [--kinds jpeg,png,raw] [--workers 2] [--updates 120]

Pictures come at 30 Hz, two cameras or one, and are built at 30 Hz (each is decoded) and at 10 Hz (every third is). Both
trainings take turns, so that whatever else the machine does falls on both alike; they have the same losses.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from jepa_ros.bags.typestore import typestore

TYPES = typestore()
FIRST, RATE = 1_700_000_000 * 10**9, 30
IMAGE, COMPRESSED, STATE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState"


def header(ns: int):
    """A header stamped ns."""
    stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def scene(rng: np.random.Generator) -> np.ndarray:
    """(480, 960, 3) uint8: soft shapes with the noise of a sensor, wider than a picture so that it can move."""
    soft = cv2.resize(rng.integers(0, 256, (12, 24, 3), dtype=np.uint8), (960, 480), interpolation=cv2.INTER_CUBIC)
    return np.clip(soft.astype(int) + rng.normal(0, 3, soft.shape), 0, 255).astype(np.uint8)


def picture(view: np.ndarray, k: int, kind: str):
    """The k-th picture, 640 x 480, and its type."""
    rgb = np.ascontiguousarray(view[:, (2 * k) % 320 : (2 * k) % 320 + 640])
    stamp = header(FIRST + k * 10**9 // RATE)
    if kind == "raw":
        fields = dict(height=480, width=640, encoding="rgb8", is_bigendian=0, step=1920, data=rgb.ravel())
        return TYPES.types[IMAGE](header=stamp, **fields), IMAGE
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    data = cv2.imencode(".jpg" if kind == "jpeg" else ".png", rgb[..., ::-1], options)[1].ravel()
    return TYPES.types[COMPRESSED](header=stamp, format=kind, data=data), COMPRESSED


def write_bag(path: Path, kind: str, pictures: int) -> Path:
    """A bag of one camera at 30 Hz, and the states of two joints at 100 Hz."""
    view, none = scene(np.random.default_rng(0)), np.empty(0)
    image_kind = IMAGE if kind == "raw" else COMPRESSED
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topic = "/image" if kind == "raw" else "/image/compressed"
        images = bag.add_connection(topic, image_kind, typestore=TYPES)
        states = bag.add_connection("/joint_states", STATE, typestore=TYPES)
        for k in range(pictures):
            message, _ = picture(view, k, kind)
            bag.write(images, FIRST + k * 10**9 // RATE, TYPES.serialize_cdr(message, image_kind))
            for j in range(10 * k // 3, 10 * (k + 1) // 3):
                t = FIRST + j * 10**7
                q = np.array([np.sin(0.01 * j), np.cos(0.01 * j)])
                state = TYPES.types[STATE](
                    header=header(t), name=["a", "b"], position=q, velocity=0.01 * q, effort=none
                )
                bag.write(states, t, TYPES.serialize_cdr(state, STATE))
    return path


MAPPING = "views: [{topic: /image}]\njoint_states: {joints: [a, b]}\nactions: {source: states}\nepisodes: null\n"


def time_build(folder: Path, kind: str, pictures: int, workers: int) -> dict[str, float]:
    """Pictures of the bag a second, when built at 30 and at 10 Hz."""
    from jepa_ros.datasets.build import build_dataset

    bag, mapping = write_bag(folder / kind, kind, pictures), folder / "mapping.yaml"
    mapping.write_text(MAPPING)
    found = {"megabytes": sum(f.stat().st_size for f in bag.iterdir()) / 1e6}
    for rate in (30, 10):
        out = folder / f"{kind}{rate}"
        build_dataset(bags=[bag], out=out, mapping=mapping, rate=rate, size=64, workers=workers)
        summary = json.loads((out / "summary.json").read_text())
        found[f"pictures_per_s@{rate}Hz"] = summary["frames_per_s"]
        found[f"frames@{rate}Hz"] = sum(summary["frames"].values())
        shutil.rmtree(out)
    shutil.rmtree(bag)
    return found


def write_dataset(path: Path, episodes: int, ticks: int = 60, shards: int = 5) -> Path:
    """A dataset of the simulated arm's layout with noise for pictures; `shards` bags."""
    from jepa_ros.datasets.store import INDEX, Index, Layout, write_json
    from jepa_ros.robot.config import load_robot

    robot, rng, rows = load_robot("openarm"), np.random.default_rng(0), ticks + 1
    layout = Layout(
        rate=10,
        size=64,
        views=("/image",),
        joints=tuple(robot.joints),
        gripper=tuple(robot.gripper),
        action_space="planar_velocity",
        action_source="executed",
        action_names=("vx", "vy"),
        positions=("tool",),
    )
    entries, names = [], []
    for shard in range(shards):
        names.append(f"shards/{shard}")
        folder = path / names[-1]
        folder.mkdir(parents=True)
        count = episodes // shards
        n = count * rows
        np.save(folder / "frames.npy", rng.integers(0, 256, (n, 1, 64, 64, 3), dtype=np.uint8))
        np.save(folder / "states.npy", rng.normal(size=(n, len(layout.state_names))).astype(np.float32))
        np.save(folder / "actions.npy", rng.uniform(-1, 1, (n, 2)).astype(np.float32))
        np.save(folder / "positions.npy", rng.normal(size=(n, 1, 3)))
        np.save(folder / "stamps.npy", np.arange(n) * 10**8)
        np.save(folder / "pictures.npy", np.arange(n)[:, None])
        for k in range(count):
            split = {7: "val", 13: "test"}.get(k % 20, "train")
            entries.append({"start": k * rows, "frames": rows, "split": split, "shard": shard})
    index = {"layout": layout, "shards": names, "bags": names, "split_by": "marker", "episodes": entries}
    write_json(path / INDEX, Index.model_validate(index))
    return path


def forget(path: Path) -> None:
    """Ask the system to drop a dataset's pages from memory, so that the first reads are of the disk."""
    os.sync()
    for file in path.rglob("*.npy"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_training(folder: Path, episodes: int, updates: int) -> dict[str, float]:
    """Frames a second of both ways to train, in turns of ten updates, with the recipe `reach`."""
    import torch

    from jepa_ros.allocator import keep_freed_memory
    from jepa_ros.datasets.episodes import EpisodeSet, normalisation
    from jepa_ros.reporting.progress import ProgressDisplay
    from jepa_ros.robot.config import load_robot
    from jepa_ros.training.recipe import read_recipe
    from jepa_ros.training.train_model import load_training_data, make_trainer

    torch.set_num_threads(1)
    keep_freed_memory()
    data, recipe = write_dataset(folder / "data", episodes), read_recipe("reach")
    with ProgressDisplay(quiet=True) as bar:
        cached, config = load_training_data(data, load_robot("openarm"), "bench", recipe, bar)
    every = [e for part in cached.values() for e in part.episodes]
    mean, std = normalisation(every)
    memory = {
        split: EpisodeSet([replace(e, frames=np.array(e.frames)) for e in part.episodes], mean, std)
        for split, part in cached.items()
    }
    trainers = {
        name: make_trainer(config, recipe, sets, 0, folder / name)
        for name, sets in (("memory", memory), ("cache", cached))
    }
    for trainer in trainers.values():
        for _ in range(5):
            trainer.step()
        trainer.progress.loading = 0.0
    forget(data)
    times, losses = {name: [] for name in trainers}, {name: [] for name in trainers}
    for turn in range(updates // 10):
        for name in sorted(trainers, reverse=bool(turn % 2)):
            begin = time.perf_counter()
            losses[name] += [trainers[name].step()["loss"] for _ in range(10)]
            times[name].append(time.perf_counter() - begin)
    if losses["memory"] != losses["cache"]:
        raise SystemExit("the losses differ: what was timed is not the same training")
    window = recipe.history + recipe.schedule.steps
    frames = 10 * recipe.schedule.batch * window
    rates = {f"{n}_frames_per_s": frames / float(np.median(t)) for n, t in times.items()}
    loading = {f"{n}_loading_share": t.progress.loading / sum(times[n]) for n, t in trainers.items()}
    # Of turns that follow each other: what else the machine does comes and goes.
    ratio = float(np.median(np.array(times["memory"]) / np.array(times["cache"])))
    return rates | loading | {"cache_over_memory": ratio}


def main() -> None:
    """Print all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1800)
    parser.add_argument("--kinds", default="jpeg,png,raw")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--updates", type=int, default=120)
    options = parser.parse_args()
    figures = {"cores": os.cpu_count(), "workers": options.workers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in filter(None, options.kinds.split(",")):
            figures[kind] = time_build(folder, kind, options.pictures, options.workers)
        figures["peak_mb_of_building"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        if options.updates:
            figures["training"] = time_training(folder, options.episodes, options.updates)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
