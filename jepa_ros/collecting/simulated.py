"""`jepa_ros collect sim`: random play in the simulated cell, through the gate, recorded as one rosbag2 (mcap) bag.

Episodes are recorded in parts, each a small bag of its own that appears whole or not at all; when all are there they
are joined into one bag of several files. So an interrupted run goes on with the next part, to the same bag.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

from jepa_ros.bags.writer import DiskFull, EpisodeWriter
from jepa_ros.datasets.segments import split_of
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.motion.random_play import sample_random_play
from jepa_ros.text_files import write_atomically

PART = 20  # episodes
TICKS = 60  # of an episode
PERIOD = 0.1  # s of a control tick
CYCLE = 0.01  # s of the controller
JOINT_STATE_RATE = 50  # Hz
FIRST_STAMP = 1_700_000_000  # s; stamps of zero count as "no time yet" in ROS


@dataclass(frozen=True)
class Recipe:
    """All that decides what is recorded."""

    episodes: int
    seed: int
    robot: str
    width: int
    height: int
    rate: float
    ticks: int = TICKS


def run(
    *,
    out: Path,
    episodes: int,
    seed: int,
    robot: str = "openarm",
    width: int = 320,
    height: int = 240,
    rate: float = 10.0,
    workers: int = 2,
) -> int:
    """Record, showing progress; writes summary.json and report.html into the bag's directory.

    Returns 1 where the disk became full: the bag holds what was recorded until then. Raises InputError.
    """
    recipe = Recipe(episodes, seed, robot, width, height, rate)
    _check(recipe)
    started = time.time()
    if (out / "metadata.yaml").exists():
        _expect_same(out, recipe)
        return 0
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    _expect_same(out, recipe)
    jobs = [(recipe, k, parts) for k in range(math.ceil(episodes / PART)) if not (parts / f"{k:04d}").exists()]
    stopped = ""  # why not everything was recorded
    with ProgressDisplay() as bar:
        done = episodes - sum(_size(recipe, part) for _, part, _ in jobs)
        task = bar.add("episodes", episodes, done)
        with multiprocessing.get_context("spawn").Pool(max(1, min(workers, len(jobs))), _ignore_interrupt) as pool:
            for count, full in pool.imap_unordered(_record_part, jobs):
                done += count
                bar.update(task, done)
                stopped = stopped or full
    if stopped and not done:
        raise InputError(stopped)
    _join(out, parts)
    _report(out, recipe, time.time() - started)
    if stopped:
        print(f"recording ended early, with {done} of {episodes} episodes: {stopped}", file=sys.stderr)
        return 1
    return 0


def _check(recipe: Recipe) -> None:
    from jepa_ros.robot.config import load_robot, require_planar_space

    require_planar_space(load_robot(recipe.robot))
    if abs(recipe.rate * PERIOD - round(recipe.rate * PERIOD)) > 1e-9 or recipe.rate * PERIOD < 1:
        raise InputError(f"rate {recipe.rate:g}: expected a multiple of the control rate of {1 / PERIOD:g} Hz")


def _expect_same(out: Path, recipe: Recipe) -> None:
    path = out / "recipe.json"
    if not path.exists():
        path.write_text(json.dumps(asdict(recipe)))
    elif (found := json.loads(path.read_text())) != asdict(recipe):
        raise InputError(f"bag {out}: expected to go on with {found}, found the options {asdict(recipe)}")


def _ignore_interrupt() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers


def _size(recipe: Recipe, part: int) -> int:
    return min(PART, recipe.episodes - part * PART)


def _record_part(job: tuple[Recipe, int, Path]) -> tuple[int, str]:
    """Record one part; returns its number of episodes, and why it has not all of them, if so."""
    from jepa_ros.robot.config import load_robot
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.scene import OPTICAL_FRAME, Scene

    recipe, part, parts = job
    partial = parts / f"{part:04d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    robot = load_robot(recipe.robot)
    cell = ArmCell(Scene(width=recipe.width, height=recipe.height), robot, PERIOD)
    done, stopped, first = 0, "", part * PART
    try:
        with EpisodeWriter(partial, OPTICAL_FRAME, robot.base_frame) as bag:
            bag.robot_description(_stamp(recipe, first, 0.0), cell.scene.urdf)
            bag.camera_pose(_stamp(recipe, first, 0.0), *cell.scene.camera_pose)
            for episode in range(first, first + _size(recipe, part)):
                _record_episode(bag, cell, recipe, episode)
                done += 1
    except (DiskFull, OSError) as error:  # OSError: another limit than the disk's size, or somebody else took the rest
        stopped = str(error)
    if not done:
        shutil.rmtree(partial, ignore_errors=True)
        return 0, stopped
    os.replace(partial, parts / f"{part:04d}")
    return done, stopped


def _stamp(recipe: Recipe, episode: int, t: float) -> int:
    return FIRST_STAMP * 10**9 + episode * int((recipe.ticks * PERIOD + 1.0) * 1e9) + round(t * 1e9)


def _record_episode(bag: EpisodeWriter, cell, recipe: Recipe, episode: int) -> None:
    from jepa_ros.sim.tasks.reach import sample_position

    rng = np.random.default_rng([recipe.seed, episode])
    cell.reset(cell.space.inverse_kinematics(sample_position(cell.space, rng)))
    begin = _next_tick(cell)
    _follow(cell, begin, sample_random_play(recipe.ticks, rng), episode + 1)

    def stamp(t: float) -> int:
        return _stamp(recipe, episode, t - begin)

    def note(done) -> None:
        if begin - 1e-6 < done.start < begin + recipe.ticks * PERIOD - 1e-6:
            start, end = stamp(done.start), stamp(done.start + PERIOD)
            bag.executed(start, end, PERIOD, cell.space.name, done.values, done.plan_id)

    bag.episode(stamp(begin), episode, split_of(episode), "play")
    bag.camera_info(stamp(begin), cell.scene.camera_intrinsics)
    frame_every, state_every = round(1 / (recipe.rate * CYCLE)), round(1 / (JOINT_STATE_RATE * CYCLE))
    for cycle in range(round(recipe.ticks * PERIOD / CYCLE) + 1):
        now = cell.scene.time
        if cycle % state_every == 0:
            bag.joint_state(stamp(now), *cell.scene.joint_state())
        if cycle % frame_every == 0:
            bag.image(stamp(now), cell.scene.render())
        for done in cell.advance(CYCLE):
            note(done)


def _next_tick(cell) -> float:
    """Run on to the next multiple of the control period, and return it."""
    target = math.ceil(cell.scene.time / PERIOD + 0.5) * PERIOD
    for _ in cell.advance(target - cell.scene.time):
        pass
    return target


def _follow(cell, start: float, wanted: np.ndarray, plan_id: int) -> None:
    """Hand the gate the motion of the whole episode, from rest."""
    q, qd, qdd = cell.gate.tick(start).reference
    knots = cell.space.constrain(cell.space.tool_coordinates(q), cell.space.tool_knot(q, qd), wanted)
    trajectory = cell.space.to_trajectory(q, qd, qdd, knots)
    verdict = cell.gate.submit_plan(trajectory, start, start, start + trajectory.duration + 1.0, plan_id, start)
    if not verdict:
        raise RuntimeError(f"the gate refused a plan of random play: {verdict.text}")


def _join(out: Path, parts: Path) -> None:
    """Make one bag of several files of the parts, in order."""
    directories = sorted(p for p in parts.iterdir() if p.is_dir())
    merged, total, counts, files = None, 0, {}, []
    begin, end = math.inf, 0
    for index, directory in enumerate(directories):
        info = yaml.safe_load((directory / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        merged = merged or info
        total += info["message_count"]
        for entry in info["topics_with_message_count"]:
            name = entry["topic_metadata"]["name"]
            counts[name] = counts.get(name, 0) + entry["message_count"]
        file = dict(info["files"][0], path=f"{out.name}_{index}.mcap")
        files.append(file)
        start = info["starting_time"]["nanoseconds_since_epoch"]
        begin, end = min(begin, start), max(end, start + info["duration"]["nanoseconds"])
        (out / file["path"]).unlink(missing_ok=True)  # of a run that was interrupted here
        os.link(directory / info["relative_file_paths"][0], out / file["path"])
    merged["message_count"], merged["files"] = total, files
    merged["relative_file_paths"] = [f["path"] for f in files]
    merged["starting_time"]["nanoseconds_since_epoch"] = begin
    merged["duration"]["nanoseconds"] = end - begin
    for entry in merged["topics_with_message_count"]:
        entry["message_count"] = counts[entry["topic_metadata"]["name"]]
    text = yaml.safe_dump({"rosbag2_bagfile_information": merged}, sort_keys=False)
    write_atomically(out / "metadata.yaml", text)
    shutil.rmtree(parts)


def _report(out: Path, recipe: Recipe, wall_s: float) -> None:
    """summary.json and report.html: what was recorded, and how well it covers the workspace."""
    from jepa_ros.bags.reader import read_robot_description
    from jepa_ros.collecting.coverage import read_coverage
    from jepa_ros.reporting import plots
    from jepa_ros.robot.config import load_robot
    from jepa_ros.sim.cell import make_action_space

    robot = load_robot(recipe.robot)
    space = make_action_space(robot, read_robot_description(out), PERIOD)
    tool, actions, images, splits = read_coverage(out, space, tuple(robot.joints))
    count = len(splits)
    size = sum(f.stat().st_size for f in out.glob("*.mcap"))
    values = {
        "recipe": asdict(recipe),
        "episodes": {s: splits.count(s) for s in ("train", "val", "test")},
        "frames": count * (round(recipe.ticks * PERIOD * recipe.rate) + 1),
        "actions": len(actions),
        "megabytes": size / 1e6,
        "speed_m_s": {"mean": float(np.linalg.norm(actions, axis=1).mean() * space.max_speed)},
        "frames_per_s": count * recipe.ticks * PERIOD * recipe.rate / max(wall_s, 1e-9),
        "wall_s": wall_s,
    }
    write_summary(out / "summary.json", values)
    report = Report("Random play", f"{count} episodes of {recipe.ticks * PERIOD:g} s, seed {recipe.seed}")
    report.tiles({"episodes": count, "frames": values["frames"], "MB": round(size / 1e6)})
    fig, (left, right) = plots.figure(2)
    left.plot(tool[:, 0], tool[:, 1], ".", ms=1, alpha=0.3)
    left.plot(*np.vstack([space.workspace, space.workspace[:1]]).T, lw=1)
    left.set(title="Where the tool has been", xlabel="x (m)", ylabel="y (m)", aspect="equal")
    right.hist(np.linalg.norm(actions, axis=1), bins=40)
    right.set(title="Executed speed", xlabel="share of the greatest", ylabel="ticks")
    report.plot(fig)
    report.images([("episode begins", p) for p in images])
    report.write(out / "report.html")
