"""Recording of random play: parts, resumption, splits, and that what is recorded is what the arm did."""

import os
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from helpers import sim_arm
from helpers.episode_bags import FIELDS, FIRST, SPACE, write_episode
from jepa_ros.bags.writer import EpisodeWriter
from jepa_ros.collecting import simulated as collect
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.tool_path import sample_random_play


def test_validation_and_test_get_5_percent_of_the_episodes_each():
    assert Counter(map(collect.choose_split, range(200))) == {"train": 180, "val": 10, "test": 10}
    assert {collect.choose_split(e) for e in range(14)} == {"train", "val", "test"}


class InProcess:
    """Stands in for a pool of processes."""

    @contextmanager
    def Pool(self, *_):  # noqa: N802
        yield SimpleNamespace(imap_unordered=map)


@pytest.fixture
def recorded(monkeypatch):
    """Invented episodes in parts of two, in this process; the parts that were recorded, and one that fails."""
    done = SimpleNamespace(parts=[], fails=None)

    def record(job):
        recipe, part, parts = job
        if part == done.fails:
            (parts / f"{part:04d}.partial").mkdir()
            raise KeyboardInterrupt
        done.parts.append(part)
        first, size = part * 2, min(2, recipe.episodes - part * 2)
        with EpisodeWriter(parts / f"{part:04d}", "camera", "world") as bag:
            bag.robot_description(FIRST + first * 10**10, "<robot/>")
            for episode in range(first, first + size):
                write_episode(bag, episode, collect.choose_split(episode), 3 + episode, FIRST + episode * 10**10)
        return size, ""

    monkeypatch.setattr(collect, "PART_EPISODES", 2)
    monkeypatch.setattr(collect, "_record_part", record)
    monkeypatch.setattr(collect, "_report", lambda *arguments: None)
    monkeypatch.setattr(collect, "multiprocessing", SimpleNamespace(get_context=lambda _: InProcess()))
    return done


def lengths(bag):
    return [len(e.actions) for e in read_episodes(bag, SPACE, FIELDS, 16)]


def test_parallel_parts_are_joined_into_one_bag_in_order(recorded, tmp_path):
    out = tmp_path / "play"
    assert collect.collect_simulated(out=out, episodes=5, seed=0) == 0
    assert recorded.parts == [0, 1, 2] and lengths(out) == [3, 4, 5, 6, 7]
    assert sorted(p.name for p in out.iterdir()) == [
        "metadata.yaml",
        "play_0.mcap",
        "play_1.mcap",
        "play_2.mcap",
        "recipe.json",
    ]
    with Reader(out) as reader:
        per_topic = {c.topic: c.msgcount for c in reader.connections}
        assert per_topic["/episode"] == 5 and per_topic["/executed"] == 25 and per_topic["/robot_description"] == 3
        assert reader.message_count == sum(per_topic.values())
        assert reader.start_time == FIRST and reader.end_time > FIRST + 4 * 10**10


def test_finished_parts_are_not_recorded_again(recorded, tmp_path):
    recorded.fails = 1
    with pytest.raises(KeyboardInterrupt):
        collect.collect_simulated(out=tmp_path / "play", episodes=5, seed=0)
    assert recorded.parts == [0] and not (tmp_path / "play" / "metadata.yaml").exists()
    recorded.fails = None
    (tmp_path / "play" / "parts" / "0001.partial").rmdir()
    collect.collect_simulated(out=tmp_path / "play", episodes=5, seed=0)
    assert recorded.parts == [0, 1, 2] and lengths(tmp_path / "play") == [3, 4, 5, 6, 7]


def test_a_finished_bag_is_not_changed(recorded, tmp_path):
    collect.collect_simulated(out=tmp_path / "play", episodes=3, seed=0)
    collect.collect_simulated(out=tmp_path / "play", episodes=3, seed=0)
    assert recorded.parts == [0, 1]


def test_an_interrupted_join_of_parts_is_resumed(recorded, tmp_path, monkeypatch):
    links = []

    def link(source, target):
        links.append(target)
        if len(links) == 2:
            raise KeyboardInterrupt
        real(source, target)

    real = os.link
    monkeypatch.setattr(collect.os, "link", link)
    with pytest.raises(KeyboardInterrupt):
        collect.collect_simulated(out=tmp_path / "play", episodes=5, seed=0)
    collect.collect_simulated(out=tmp_path / "play", episodes=5, seed=0)
    assert recorded.parts == [0, 1, 2] and lengths(tmp_path / "play") == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("options", [{"episodes": 4}, {"seed": 1}, {"width": 64}])
def test_resuming_a_bag_with_other_options_is_refused(recorded, tmp_path, options):
    collect.collect_simulated(out=tmp_path / "play", episodes=3, seed=0)
    with pytest.raises(InputError, match="play: was recorded with other options: expected .*, found") as error:
        collect.collect_simulated(**{"out": tmp_path / "play", "episodes": 3, "seed": 0} | options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [15.0, 5.0, 0.0, -10.0])
def test_a_rate_off_the_control_grid_is_refused(tmp_path, rate):
    with pytest.raises(InputError, match="expected a multiple of the control rate of 10 Hz"):
        collect.collect_simulated(out=tmp_path / "play", episodes=1, seed=0, rate=rate)
    assert not (tmp_path / "play").exists()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two short episodes of the real thing."""
    parts = tmp_path_factory.mktemp("parts")
    recipe = collect.CollectRecipe(2, 3, "openarm", 64, 48, 10.0, ticks=10)
    assert collect._record_part((recipe, 0, parts)) == (2, "")
    fields = (tuple(sim_arm.robot().joints), tuple(sim_arm.robot().gripper))
    return parts, recipe, list(read_episodes(parts / "0000", sim_arm.space(), fields, 32))


def test_recorded_actions_equal_the_motion_of_the_tool(real):
    _, _, episodes = real
    assert len(episodes) == 2
    for episode in episodes:
        assert episode.frames.shape == (11, 32, 32, 3) and episode.states.shape == (11, 15)
        assert np.abs(episode.actions).max() > 0.1
        # the arm follows its reference some milliseconds late
        np.testing.assert_allclose(np.diff(episode.tool, axis=0), 0.02 * episode.actions, atol=0.004)
        np.testing.assert_allclose(episode.tool[-1] - episode.tool[0], 0.02 * episode.actions.sum(0), atol=0.012)
    assert np.abs(episodes[0].tool[0] - episodes[1].tool[0]).max() > 0.01, "both begin at the same place"


def test_the_same_seed_records_the_same_episodes(real, tmp_path):
    _, recipe, episodes = real
    collect._record_part((recipe, 0, tmp_path))
    fields = (tuple(sim_arm.robot().joints), ())
    for one, again in zip(episodes, read_episodes(tmp_path / "0000", sim_arm.space(), fields, 32), strict=True):
        np.testing.assert_array_equal(one.actions, again.actions)
        np.testing.assert_array_equal(one.frames, again.frames)


def test_random_play_includes_rest_slow_and_fast_motion():
    speeds = np.linalg.norm(sample_random_play(20_000, np.random.default_rng(0)), axis=1)
    assert sample_random_play(7, np.random.default_rng(0)).shape == (7, 2)
    assert 0.05 < np.mean(speeds < 0.3) < 0.5 and np.mean(speeds > 0.8) > 0.3 and speeds.max() < 2.0


def test_the_recipe_names_another_task_only_so_that_older_recordings_can_be_resumed():
    from jepa_ros.collecting.simulated import CollectRecipe

    options = {"episodes": 1, "seed": 0, "robot": "openarm", "width": 64, "height": 48, "rate": 10.0}
    assert "task" not in CollectRecipe(**options).values()
    assert CollectRecipe(**options, task="push").values()["task"] == "push"
