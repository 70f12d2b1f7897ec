"""`jepa_ros collect sim`: random play in the simulated cell, through the gate, recorded as one rosbag2 (mcap) bag.

Episodes are recorded in parts, each a small bag that appears whole or not at all; in the end they are joined into one
bag of several files. An interrupted run therefore resumes with the next part.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from jepa_ros.bags.writer import DiskFull, EpisodeWriter
from jepa_ros.datasets.store import SPLITS, choose_split
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import after_summary, prepare_out, removed_if_refused
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot, require_velocity_space
from jepa_ros.text_files import read_json, write_atomically

if TYPE_CHECKING:
    from jepa_ros.robot.motion.trajectory import JointTrajectory
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.task import Task

PART_EPISODES = 20
EPISODE_TICKS = 60
TICK_S = 0.1
CONTROLLER_CYCLE_S = 0.01
JOINT_STATE_RATE_HZ = 50
MAX_DRAWS = 20  # of random play for an episode, until one keeps clear of the robot itself and within joint limits
FIRST_STAMP_S = 1_700_000_000  # stamps of zero mean "no time yet" in ROS


@dataclass(frozen=True)
class CollectRecipe:
    """All settings that decide what is recorded. width, height: pixels. rate: Hz of the camera. ticks: per episode."""

    episodes: int
    seed: int
    robot: str
    width: int
    height: int
    rate: float
    ticks: int = EPISODE_TICKS
    task: str = "reach"

    def values(self) -> dict[str, Any]:
        """Return the settings for recipe.json, which names the task only if it is not "reach": older recordings do not,
        and can be resumed."""
        values = asdict(self)
        return values if self.task != "reach" else {key: value for key, value in values.items() if key != "task"}

    @property
    def episode_s(self) -> float:
        """Length of an episode in s."""
        return self.ticks * TICK_S


def collect_simulated(
    *,
    out: Path,
    episodes: int = 500,
    seed: int = 0,
    robot: str = "openarm",
    width: int = 320,
    height: int = 240,
    rate: float = 10.0,
    task: str = "reach",
    workers: int = 2,
) -> int:
    """Record episodes and show progress; writes summary.json and report.html into the bag's directory `out`.

    Returns 1 where the disk became full: the bag holds what was recorded until then. Raises InputError.
    """
    out, started = Path(out), time.time()
    recipe = CollectRecipe(episodes, seed, robot, width, height, rate, task=task)
    from jepa_ros.sim.tasks import make_task

    arm = load_robot(robot)
    require_velocity_space(arm)
    make_task(task, arm)  # one that is not for this robot is refused before anything is written
    if abs(rate * TICK_S - round(rate * TICK_S)) > 1e-9 or rate * TICK_S < 1:
        raise InputError(f"--rate {rate:g}: expected a multiple of the control rate of {1 / TICK_S:g} Hz")
    recipe_file = prepare_out(out) / "recipe.json"
    if recipe_file.exists():
        if (found := read_json(recipe_file, "recipe")) != recipe.values():
            raise InputError(f"bag {out}: was recorded with other options: expected {found}, found {recipe.values()}")
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"bag {out}: expected a new or empty directory, or an interrupted recording")
    if (out / "metadata.yaml").exists():
        _print_result(out, recipe, episodes)
        return 0
    parts, stopped = out / "parts", ""  # why not everything was recorded
    with removed_if_refused(recipe_file, "parts/????"), ProgressDisplay() as bar:
        if not recipe_file.exists():
            write_atomically(recipe_file, json.dumps(recipe.values()))
        parts.mkdir(exist_ok=True)
        count = math.ceil(episodes / PART_EPISODES)
        jobs = [(recipe, part, parts) for part in range(count) if not (parts / f"{part:04d}").exists()]
        done = episodes - sum(_part_size(recipe, part) for _, part, _ in jobs)
        line = bar.add("episodes", episodes, done)
        processes = max(1, min(workers, len(jobs)))
        ignore_interrupt = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # the parent process ends the workers
        with multiprocessing.get_context("spawn").Pool(processes, *ignore_interrupt) as pool:
            for recorded, full in pool.imap_unordered(_record_part, jobs):
                done += recorded
                bar.update(line, done)
                stopped = stopped or full
        if stopped and not done:
            raise InputError(stopped)
    _join(out, parts)
    _report(out, recipe, time.time() - started)
    _print_result(out, recipe, done)
    if stopped:
        print(f"recording ended early, with {done} of {episodes} episodes: {stopped}", file=sys.stderr)
        return 1
    return 0


def _print_result(out: Path, recipe: CollectRecipe, done: int) -> None:
    lines = [("episodes", f"{done} of {recipe.episodes}, {recipe.episode_s:g} s each"), ("seed", recipe.seed)]
    paths = [path for path in (out / "summary.json", out / "report.html") if path.exists()]
    print_result("collect sim: random play", lines, [out, *paths])


def _part_size(recipe: CollectRecipe, part: int) -> int:
    return min(PART_EPISODES, recipe.episodes - part * PART_EPISODES)


def _record_part(job: tuple[CollectRecipe, int, Path]) -> tuple[int, str]:
    """Record one part; return its number of episodes, and why it ended early (empty if it is complete)."""
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.scene import OPTICAL_FRAME, Scene
    from jepa_ros.sim.tasks import make_task

    recipe, part, parts = job
    partial = parts / f"{part:04d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    robot = load_robot(recipe.robot)
    task = make_task(recipe.task, robot)
    scene = Scene(width=recipe.width, height=recipe.height, add_objects=task.add_objects)
    cell = ArmCell(scene, robot, TICK_S)
    done, stopped, first = 0, "", part * PART_EPISODES
    try:
        with EpisodeWriter(partial, OPTICAL_FRAME, robot.base_frame) as bag:
            bag.robot_description(_stamp(recipe, first, 0.0), cell.scene.urdf)
            bag.camera_pose(_stamp(recipe, first, 0.0), *cell.scene.camera_pose)
            for episode in range(first, first + _part_size(recipe, part)):
                _record_episode(bag, cell, task, recipe, episode)
                done += 1
    except (DiskFull, OSError) as error:  # OSError: a quota, or another process filled the disk
        stopped = str(error)
    if not done:
        shutil.rmtree(partial, ignore_errors=True)
        return 0, stopped
    os.replace(partial, parts / f"{part:04d}")
    return done, stopped


def _stamp(recipe: CollectRecipe, episode: int, t: float) -> int:
    return FIRST_STAMP_S * 10**9 + episode * int((recipe.episode_s + 1.0) * 1e9) + round(t * 1e9)


def _record_episode(bag: EpisodeWriter, cell: ArmCell, task: Task, recipe: CollectRecipe, episode: int) -> None:
    rng = np.random.default_rng([recipe.seed, episode])
    task.reset_for_play(cell, rng)
    begin = math.ceil(cell.scene.time / TICK_S + 0.5) * TICK_S  # the next control tick
    for _ in cell.advance(begin - cell.scene.time):
        pass
    _follow(cell, begin, recipe.ticks, rng, episode + 1)

    def stamp(t: float) -> int:
        return _stamp(recipe, episode, t - begin)

    bag.episode(stamp(begin), episode, choose_split(episode), "play")
    bag.camera_info(stamp(begin), cell.scene.camera_intrinsics)
    frame_every = round(1 / (recipe.rate * CONTROLLER_CYCLE_S))
    state_every = round(1 / (JOINT_STATE_RATE_HZ * CONTROLLER_CYCLE_S))
    for cycle in range(round(recipe.episode_s / CONTROLLER_CYCLE_S) + 1):
        now = cell.scene.time
        if cycle % state_every == 0:
            bag.joint_state(stamp(now), *cell.scene.joint_state())
        if cycle % frame_every == 0:
            bag.image(stamp(now), cell.scene.render())
        for done in cell.advance(CONTROLLER_CYCLE_S):
            if begin - 1e-6 < done.start < begin + recipe.episode_s - 1e-6:
                start, end = stamp(done.start), stamp(done.start + TICK_S)
                bag.executed(start, end, TICK_S, cell.space.name, done.values, done.plan_id)


def _follow(cell: ArmCell, start: float, ticks: int, rng: np.random.Generator, plan_id: int) -> None:
    """Submit the random motion of the whole episode to the gate, from rest."""
    state = cell.gate.tick(start).reference
    for _ in range(MAX_DRAWS):
        trajectory = _sample_trajectory(cell, state, ticks, rng)
        if not (violation := cell.find_violation(trajectory)):
            break
    else:
        raise RuntimeError(f"random play: {MAX_DRAWS} draws are not allowed, the last one because {violation}")
    verdict = cell.gate.submit_plan(trajectory, start, start, start + trajectory.duration + 1.0, plan_id, start)
    if not verdict:
        raise RuntimeError(f"the gate rejected a plan of random play: {verdict.text}")


def _sample_trajectory(cell: ArmCell, state, ticks: int, rng: np.random.Generator) -> JointTrajectory:
    """Return random play of `ticks` ticks from a joint state (q, qd, qdd)."""
    q, qd, qdd = state
    play, space = cell.space.sample_play(ticks, rng), cell.space
    return space.to_trajectory(q, qd, qdd, space.constrain(space.tool_coordinates(q), space.tool_knot(q, qd), play))


def _join(out: Path, parts: Path) -> None:
    """Join the parts, in order, into one bag of several files."""
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
        (out / file["path"]).unlink(missing_ok=True)  # left by a run that was interrupted here
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


def _report(out: Path, recipe: CollectRecipe, wall_s: float) -> None:
    """Write summary.json and report.html: what was recorded, and how well it covers the workspace."""
    from jepa_ros.bags.reader import read_robot_description
    from jepa_ros.collecting.live_report import plot_coverage, read_coverage
    from jepa_ros.sim.cell import make_action_space

    robot = load_robot(recipe.robot)
    space = make_action_space(robot, read_robot_description(out), TICK_S)
    tool, actions, images, splits = read_coverage(out, space, tuple(robot.joints))
    count, speed = len(splits), np.linalg.norm(actions[:, : space.position_axes], axis=1)
    megabytes = sum(f.stat().st_size for f in out.glob("*.mcap")) / 1e6
    values = {
        "recipe": recipe.values(),
        "episodes": {s: splits.count(s) for s in SPLITS},
        "frames": count * (round(recipe.episode_s * recipe.rate) + 1),
        "actions": len(actions),
        "megabytes": megabytes,
        "speed_m_s": {"mean": float(speed.mean() * space.max_speed)},
        "frames_per_s": count * recipe.episode_s * recipe.rate / max(wall_s, 1e-9),
        "wall_s": wall_s,
    }
    summary = write_summary(out / "summary.json", values)
    with after_summary(summary):
        report = Report("Random play", f"{count} episodes of {recipe.episode_s:g} s, seed {recipe.seed}")
        report.tiles({"episodes": count, "frames": values["frames"], "MB": round(megabytes)})
        report.plot(plot_coverage(space, tool, speed))
        report.images([("start of an episode", image) for image in images])
        report.write(out / "report.html")
