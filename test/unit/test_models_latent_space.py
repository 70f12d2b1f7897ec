"""The latent space of a model: what is measured of latents that are known, and the report of a bag."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers import small_models, two_camera_bags
from helpers.checkpoint_files import URDF, run, share, write_bag, write_model, write_robot
from jepa_ros.checkpoints.latent_report import choose_cameras
from jepa_ros.checkpoints.latent_space import (
    LatentSpace,
    encode_episodes,
    measure_latent_space,
    rank_correlation,
    read_test_and_others,
)
from jepa_ros.datasets.episodes import Episode
from jepa_ros.errors import InputError
from jepa_ros.robot.config import load_robot
from jepa_ros.world_model.checkpoint import choose_robot
from jepa_ros.world_model.config import read_config
from jepa_ros.world_model.protocol import PredictiveModel

EPISODES, TICKS = 8, 12


def known(of, tests=2) -> LatentSpace:
    """Latents `of` (N, 2) tool positions in m, on a grid of places that every episode visits."""
    rng = np.random.default_rng(0)
    tool = np.concatenate([rng.uniform(-0.3, 0.3, (TICKS, 2)) for _ in range(EPISODES)])
    latents = torch.from_numpy(of(tool)).float()
    episode = np.repeat(np.arange(EPISODES), TICKS)
    return LatentSpace(
        pooled=latents,
        whole=latents,
        kept=np.arange(len(tool)),
        frames=np.zeros((len(tool), 8, 8, 3), np.uint8),
        tool=tool,
        episode=episode,
        time=0.1 * (np.arange(len(tool)) % TICKS),
        test=episode >= EPISODES - tests,
    )


def turned(tool):
    """Four numbers, linear in the place."""
    return tool @ np.array([[1.0, 2.0, 0.0, -1.0], [0.5, -1.0, 2.0, 0.0]]) + 3.0


def test_a_linear_latent_is_probed_exactly():
    found = measure_latent_space(known(turned))
    assert found["probe"]["r2"] == pytest.approx(1.0, abs=1e-6) and found["probe"]["error_p95"] < 1e-4
    assert sum(found["plane_variance"]) == pytest.approx(1.0, abs=1e-6)
    assert found["effective_rank"] < 2.01 and len(found["singular_values"]) == 4
    assert found["collapse"] is None and found["distance"]["rank_correlation"] > 0.9


def test_a_latent_without_the_tool_has_bad_metrics():
    found = measure_latent_space(known(lambda tool: np.random.default_rng(1).normal(size=(len(tool), 4))))
    near = found["neighbours"]
    assert found["probe"]["r2"] < 0.3 and abs(found["distance"]["rank_correlation"]) < 0.1
    assert near["tool_distance"] > 3 * near["least_tool_distance"]


def test_a_collapsed_latent_is_reported_without_a_crash():
    found = measure_latent_space(known(lambda tool: np.ones((len(tool), 4))))
    assert "collapsed" in found["collapse"]
    assert found["effective_rank"] is None and found["distance"]["rank_correlation"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_probe_is_not_fitted_on_test_frames():
    space = known(turned)
    space.tool[space.test] += 1.0
    assert np.allclose(space.probed, space.tool[space.test] - 1.0, atol=1e-4)


def test_nearest_frames_are_from_other_episodes():
    space = known(lambda tool: tool)
    for number in (0, 40, 95):
        rows, distances = space.nearest(number, 5)
        away = np.linalg.norm(space.tool - space.tool[number], axis=1)
        best = {e: away[space.episode == e].min() for e in range(EPISODES) if e != space.episode[number]}
        assert np.allclose(away[rows], sorted(best.values())[:5], atol=1e-5)
        assert len(set(space.episode[rows])) == 5 and space.episode[number] not in space.episode[rows]
        assert np.allclose(distances, away[rows] ** 2 / 2, atol=1e-5)
    near = measure_latent_space(space)["neighbours"]
    assert near["tool_distance"] == pytest.approx(near["least_tool_distance"], rel=1e-3)
    assert near["random_tool_distance"] > 3 * near["tool_distance"]


def test_queries_are_test_frames_far_apart():
    space = known(turned)
    chosen = space.pick_distant_frames(6)
    assert len(set(chosen)) == 6 and space.test[space.kept[chosen]].all()
    places = space.tool[space.kept[chosen]]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]]
    assert min(apart) > 0.1
    assert len(space.pick_distant_frames(1000)) == int(space.test.sum())


class Patches(PredictiveModel):
    """Four tokens of three numbers: the mean colour of each quarter of the picture."""

    latent_shape, history = (4, 3), 1

    def encode(self, frames):
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        return nn.functional.avg_pool2d(images, images.shape[-1] // 2).flatten(2).transpose(1, 2)


def coloured(count, split="train"):
    frames = np.random.default_rng(count).integers(0, 255, (count, 8, 8, 3), np.uint8)
    return Episode(frames, np.zeros((count, 2)), np.zeros((count - 1, 2)), np.zeros((count, 2)), split)


def test_whole_latents_are_kept_within_the_memory_limit():
    episodes, done = [coloured(50), coloured(45, "test")], []
    model, frames = Patches(), np.concatenate([e.frames for e in episodes])
    every = model.encode(frames)
    for limit, step in ((2**30, 1), (95 * 48 // 3, 3), (1000, math.ceil(95 * 48 / 1000))):
        space = encode_episodes(model, episodes, 0.1, done.append, kept_bytes=limit)
        assert torch.equal(space.pooled, every.mean(1))
        assert (space.kept == np.arange(0, 95, step)).all() and torch.equal(space.whole, every[space.kept])
        assert done[-1] == 95
    assert space.time[49] == pytest.approx(4.9) and space.time[50] == 0.0
    assert space.test.tolist() == [False] * 50 + [True] * 45 and space.episode[50] == 1
    rows, _ = space.nearest(0, 5)
    assert len(rows) == 1 and rows[0] in space.kept and rows[0] >= 50


def test_the_rank_correlation_ignores_the_scale():
    x = np.linspace(0.1, 2, 50)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1.0)
    assert rank_correlation(x, -x) == pytest.approx(-1.0)
    assert rank_correlation(x, np.ones(50)) is None


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = share(tmp_path, monkeypatch)
    write_model(root / "m", gripper=("g",), robots=("slides",))
    return root


def test_report_image_and_summary_are_written(root):
    bag, out = write_bag(root / "bag", ["train", "train", "val", "test", "test", "test"]), root / "out"
    result = run("inspect", root / "m", "--data", bag, "--out", out, "--episodes", 4)
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["robot"], summary["data"], summary["model"]) == ("slides", "../bag", "tiny")
    assert "probe R² of the tool (test)" in result.stdout and f"{out}/report.html" in result.stdout
    found = summary["latent_space"]
    assert (found["episodes"], found["frames"], found["test_frames"], found["dimensions"]) == (4, 44, 11, 4)
    assert found["probe"]["r2"] > 0.99, "the pictures' grey and the tool's place are both the time"
    assert (out / "latent.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 4 and page.count("<img") == 6 * 4, "six test frames and three nearest ones each"
    assert sorted(p.name for p in out.iterdir()) == ["latent.png", "report.html", "summary.json"]


def test_reading_continues_until_there_are_test_episodes(root):
    bag = write_bag(root / "bag", ["train", "train", "train", "test", "train"])
    config, arm = small_models.config(), load_robot("slides")
    for limit, count in ((2, 4), (4, 4), (5, 5), (100, 5)):
        found = read_test_and_others(bag, arm, config, limit, lambda frames: None)
        assert len(found) == count
    np.testing.assert_allclose(found[0].tool[:, 1], -0.02 * 0.1 * np.arange(11), atol=1e-9)


def test_unusable_bags_give_a_one_line_error(root):
    def line(bag, *arguments):
        found = refused_after_progress("inspect", root / "m", "--data", bag, "--out", root / "out", *arguments)
        assert not (root / "out").exists()
        return found

    assert "expected a rosbag2 directory or file, found nothing there" in line(root / "none")
    alone = write_bag(root / "alone", ["train", "val"])
    assert "expected episodes of split test and of another to fit a probe on, found 2 of train, val" in line(alone)
    other = write_robot(root / "other.yaml", gripper=["h"])
    assert "joint_states: messages without the joints ['h']" in line(alone, "--robot", other)
    bad = write_bag(root / "bad", ["train", "test"], urdf=URDF.replace('name="a"', 'name="z"'))
    assert "expected the joints ['a']" in line(bad)


def refused_after_progress(*arguments):
    """As refused, where lines of progress may come first."""
    result = run(*arguments)
    assert result.exit_code == 2 and not result.stdout, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("jepa_ros: ")
    return last


def test_a_model_without_robots_needs_the_option_robot(root):
    config = small_models.config(robots=())
    with pytest.raises(InputError, match="its config names no robot; give one"):
        choose_robot(config, None)
    assert choose_robot(config, "slides").name == "slides"
    assert choose_robot(small_models.config(robots=("slides", "gone")), None).name == "slides"


def test_cameras_of_a_multi_camera_model_are_found_in_the_bag(root):
    bag = two_camera_bags.add_wrist(write_bag(root / "one", ["train", "test"]), root / "bag")
    write_model(root / "m", gripper=("g",), robots=("slides",), cameras=("frame", "wrist/frame"))
    config = read_config(root / "m")
    assert choose_cameras(bag, config, ()) == ("image", "wrist/image")
    assert choose_cameras(bag, config, ("/wrist/image", "/image")) == ("/wrist/image", "/image")
    assert choose_cameras(bag, small_models.config(), ()) == (), "which the bag's reader settles"
    with pytest.raises(InputError, match=r"views frame, wrist/frame of model tiny, found image: give --camera"):
        choose_cameras(root / "one", config, ())
    result = run("inspect", root / "m", "--data", bag, "--out", root / "out", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["cameras"] == ["frame", "wrist/frame"] and facts["latent_space"]["frames"] == 22


def test_camera_views_are_shown_side_by_side():
    frames = np.random.default_rng(0).integers(0, 255, (1, 2, 8, 8, 3), np.uint8)
    space = replace(known(turned), frames=frames)
    assert (space.image(0) == np.hstack(frames[0])).all()
    assert known(turned).image(0).shape == (8, 8, 3)
