"""One model sees through several cameras: its latents, its training, the bags it learns from, the goals it is given."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from builtin_interfaces.msg import Time

from helpers import episode_bags, reach_bag, small_dino_wm, small_lewm, small_models, square_episodes, two_camera_bags
from jepa_ros.bags.cameras import frame_topics, image_topics, read_camera
from jepa_ros.bags.reader import Topic
from jepa_ros.bags.typestore import IMAGE
from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.datasets.recorded_episodes import read_episodes
from jepa_ros.errors import InputError
from jepa_ros.evaluation.closed_loop import ModelActor
from jepa_ros.evaluation.model_health import encode_frames
from jepa_ros.images import preprocess
from jepa_ros.nodes.common.convert import image_message
from jepa_ros.nodes.planner.goals import goal_frames
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.training.train_model import Trainer, train_model
from jepa_ros.world_model.anti_collapse import make_anti_collapse
from jepa_ros.world_model.checkpoint import load_checkpoint, save_checkpoint, verify
from jepa_ros.world_model.config import ModelConfig, read_config
from jepa_ros.world_model.dino_wm.model import PatchWorldModel
from jepa_ros.world_model.lewm.model import LeWM
from jepa_ros.world_model.vjepa2_ac.model import VJepa2Ac

CAMERAS = ("frame", "wrist/frame")


def lewm(cameras=CAMERAS):
    torch.manual_seed(0)
    return LeWM(small_lewm.config(cameras=cameras)).eval()


def dino_wm(cameras=CAMERAS, positions="learned"):
    torch.manual_seed(0)
    shape = (len(cameras) * small_dino_wm.TOKENS, small_dino_wm.WIDTH)
    config = small_dino_wm.config(positions=positions, latent_shape=shape).model_dump()
    return PatchWorldModel(small_dino_wm.Patches(), ModelConfig.model_validate(config | {"cameras": cameras})).eval()


def views(model, count=3, seed=0):
    """(count, cameras, S, S, 3) noise for a model."""
    side = small_lewm.SIZE if model.latent_shape == (small_lewm.LATENT,) else small_dino_wm.PIXELS
    return np.random.default_rng(seed).integers(0, 256, (count, model.cameras, side, side, 3), dtype=np.uint8)


def refusal(use, *arguments):
    with pytest.raises(InputError) as error:
        use(*arguments)
    text = str(error.value)
    assert "\n" not in text, text
    return text


# --- latents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [lewm, dino_wm])
@torch.inference_mode()
def test_latents_depend_on_every_view_and_on_their_order(family):
    model = family()
    frames = views(model)
    latents = model.encode(frames)
    assert latents.shape == (3, *model.latent_shape)
    assert not torch.allclose(model.encode(frames[:, ::-1].copy()), latents, atol=1e-4), "swapped"
    for camera in range(2):
        dark = frames.copy()
        dark[:, camera] = 0
        assert not torch.allclose(model.encode(dark), latents, atol=1e-4), f"camera {camera} in the dark"
    torch.testing.assert_close(model.encode(torch.from_numpy(frames)), latents)
    torch.testing.assert_close(torch.cat([model.encode(f[None]) for f in frames]), latents, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_patch_tokens_of_the_views_are_concatenated():
    both, one = dino_wm(), dino_wm(("frame",))
    frames = views(both)
    single = torch.cat([one.encode(frames[:, camera]) for camera in range(2)], dim=1)
    torch.testing.assert_close(both.encode(frames), single)


@pytest.mark.parametrize("family", [lewm, dino_wm])
def test_a_wrong_number_of_views_is_refused(family):
    model = family()
    frames = views(model)
    for wrong in (frames[:, 0], frames[:, :1], np.concatenate([frames, frames], axis=1), frames[None]):
        assert "frames: expected shape (B, 2, S, S, 3), found" in refusal(model.encode, wrong)
    assert "frames: expected shape (B, S, S, 3), found" in refusal(family(("frame",)).encode, frames)


def test_rope_and_vjepa2_ac_require_one_camera():
    assert "expected learned for 2 cameras, found rope" in refusal(dino_wm, CAMERAS, "rope")
    four = ("a", "b", "c", "d")  # as many tokens as one larger square would have
    assert "expected learned for 4 cameras, found rope" in refusal(dino_wm, four, "rope")
    names = tuple("abcdefg")
    config = small_lewm.config(
        family="vjepa2_ac",
        encoder={"type": "transformers", "sha256": "0"},
        predictor={"type": "block_causal", "width": 16, "depth": 1, "heads": 2},
        latent_shape=(4, 16),
        block=1,
        action={"name": "foreign", "dimension": 7},
        proprioception={"gripper": names, "mean": (0.0,) * 7, "std": (1.0,) * 7},
        cameras=CAMERAS,
    )
    encoder = SimpleNamespace(tokens=4, width=16)
    assert "expected one camera for vjepa2_ac, found frame, wrist/frame" in refusal(VJepa2Ac, encoder, config)


def test_a_checkpoint_stores_its_cameras(tmp_path):
    config = small_lewm.config(cameras=CAMERAS)
    save_checkpoint(tmp_path, config, lewm(), None)
    assert "16 px to 6 numbers" in verify(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config.cameras == CAMERAS and loaded.config.frame_shape == (2, 16, 16, 3)
    torch.testing.assert_close(loaded.model.encode(views(loaded.model)), lewm().encode(views(loaded.model)))


@pytest.mark.parametrize("cameras", [[], ["frame", "frame"], ["/frame"], ["wrist/"], ["a b"], ["1st"], "frame"])
def test_invalid_camera_topics_are_refused(tmp_path, cameras):
    values = small_lewm.config().model_dump() | {"cameras": cameras}
    (tmp_path / "config.json").write_text(yaml.safe_dump(values, default_flow_style=True, width=10**6))
    text = refusal(read_config, tmp_path)
    assert "cameras" in text or "JSON" in text


# --- training --------------------------------------------------------------------------------------------------------


def two_view_sets():
    """The square as it is, and another view of it upside down in other colours."""
    made = {}
    for split, one in square_episodes.sets().items():
        episodes = [replace(e, frames=np.stack([e.frames, 255 - e.frames[:, ::-1]], axis=1)) for e in one.episodes]
        made[split] = EpisodeSet(episodes, 0.0, 1.0)
    return made


@pytest.mark.parametrize("method", ["sigreg", "ema", "vicreg"])
def test_training_updates_use_both_views(method, tmp_path):
    config = small_models.config(latent=4, cameras=CAMERAS)
    model, _ = small_models.fresh(config)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    regulariser = make_anti_collapse(method, model.requires_grad_(True), config, updates=2)
    schedule, losses = Schedule(updates=2, batch=8, steps=2, warm_up=0, every=2), []
    trainer = Trainer(config, model, regulariser, two_view_sets(), schedule, LossWeights(directions=16), 0)
    trainer.run(tmp_path / "state", losses.append)
    assert [v["update"] for v in losses] == [1, 2] and np.isfinite([v["loss"] for v in losses]).all()
    assert np.isfinite(losses[-1]["error_ratio@3"])
    weight = "projector.layers.0.weight"
    moved = (model.state_dict()[weight] - before[weight]).abs().sum(0).unflatten(0, (2, -1))
    assert (moved.sum(1) > 0).all(), "the projector learns from both views"


def test_windows_and_latents_have_two_views():
    data, model = two_view_sets()["train"], small_models.fresh(small_models.config(latent=4, cameras=CAMERAS))[0]
    windows = data.windows(np.array([0, 1]), np.array([4, 8]), 2, 4, 2)
    assert windows.frames.shape == (2, 4, 2, 16, 16, 3)
    assert (windows.frames[0, 1] == torch.from_numpy(data.frames[4])).all()
    assert encode_frames(model, data.frames[:5], batch=2).shape == (5, 4)


def test_reconstruction_with_two_cameras_is_refused():
    config = small_models.config(latent=4, cameras=CAMERAS)
    model, _ = small_models.fresh(config)
    text = refusal(make_anti_collapse, "reconstruction", model, config)
    assert "reconstruction: expected one camera, found frame, wrist/frame" in text


def test_a_two_camera_model_is_refused_in_the_simulated_cell():
    config = small_models.config(cameras=CAMERAS)
    actor = ModelActor, None, SimpleNamespace(config=config), None, None
    assert "needs the cameras frame, wrist/frame; the simulated cell has one camera" in refusal(*actor)


# --- bags ------------------------------------------------------------------------------------------------------------

EPISODES = [{"split": "train", "ticks": 12}, {"split": "val", "ticks": 8}]
TOPICS = ("/image/compressed", "/wrist/image/compressed")


@pytest.fixture(scope="module")
def one_camera(tmp_path_factory):
    return episode_bags.write_bag(tmp_path_factory.mktemp("one") / "bag", EPISODES)


def read(path, *cameras):
    return list(read_episodes(path, episode_bags.SPACE, episode_bags.FIELDS, 16, cameras=cameras))


@pytest.mark.parametrize("late_ms", [0, 12, 40, -12])
def test_two_image_topics_are_read_synchronised(one_camera, tmp_path, late_ms):
    """Grey tells the time, in the second view as the negative."""
    bag = two_camera_bags.add_wrist(one_camera, tmp_path / "b", late_ms * 10**6)
    plain = read(one_camera)
    for episode, alone in zip(read(bag, *TOPICS), plain, strict=True):
        assert episode.frames.shape == (len(alone.frames), 2, 16, 16, 3)
        np.testing.assert_array_equal(episode.frames[:, 0], alone.frames)
        np.testing.assert_array_equal(episode.frames[:, 1], 255 - alone.frames)
        np.testing.assert_array_equal(episode.states, alone.states)
        np.testing.assert_array_equal(episode.actions, alone.actions)


def test_views_are_in_the_requested_order(one_camera, tmp_path):
    bag = two_camera_bags.add_wrist(one_camera, tmp_path / "b")
    for episode, other in zip(read(bag, *TOPICS), read(bag, "wrist/image", "image"), strict=True):
        np.testing.assert_array_equal(episode.frames[:, ::-1], other.frames)


def test_an_episode_is_limited_to_the_frames_of_all_cameras(one_camera, tmp_path):
    """Pictures 0, 1 and 9 to 12 of the first episode are missing on the wrist."""
    bag = two_camera_bags.add_wrist(one_camera, tmp_path / "b", keep=lambda number: 2 <= number < 9 or number > 12)
    first, second = read(bag, *TOPICS)
    assert (first.frames[:, 0, 0, 0, 0] == 10 * np.arange(2, 9)).all() and len(first.actions) == 6
    np.testing.assert_allclose(first.actions, episode_bags.actions(12)[2:8], atol=1e-6)
    assert len(second.actions) == 8


def test_one_of_several_cameras_is_selected_by_name(one_camera, tmp_path):
    bag = two_camera_bags.add_wrist(one_camera, tmp_path / "b")
    for alone, wrist in zip(read(bag, "/image"), read(bag, "/wrist/image"), strict=True):
        assert alone.frames.shape[1:] == (16, 16, 3)
        np.testing.assert_array_equal(wrist.frames, 255 - alone.frames)
    assert read_camera(bag, "/image") == read_camera(bag) and read_camera(bag) is not None
    assert read_camera(bag, "/wrist/image") is None, "nothing is known of it"


def test_missing_or_ambiguous_image_topics_are_refused(one_camera, tmp_path):
    bag = two_camera_bags.add_wrist(one_camera, tmp_path / "b")
    there = "found /camera_info"
    assert f"expected the image topic /head/image, {there}" in refusal(read, bag, "/image", "/head/image")
    assert f"expected one image topic, or the names of cameras, {there}" in refusal(read, bag)
    assert "views: expected different topics" in refusal(read, bag, "/image", "image/compressed")


def test_frame_topics_are_derived_from_the_image_topics_of_a_bag():
    assert frame_topics(()) == frame_topics(("/wrist/image",)) == ("frame",)
    assert frame_topics(("/image/compressed", "wrist/image_raw")) == ("frame", "wrist/frame")
    assert frame_topics(("/a/color/image_raw", "/b/color/image_raw")) == ("a/color/frame", "b/color/frame")
    assert frame_topics(("/left", "/right")) == ("left/frame", "right/frame")
    assert frame_topics(("/a/b", "/a/c", "/a/b/image")) == ("a/b/frame", "a/c/frame", "a/b/image/frame")


def test_a_two_camera_recipe_trains_a_two_camera_model(tmp_path):
    bag = two_camera_bags.add_wrist(reach_bag.write(tmp_path / "one", ticks=20), tmp_path / "both")
    recipe = {
        "encoder": {"type": "conv", "channels": [4, 8]},
        "predictor": {"type": "causal", "width": 8, "depth": 1, "heads": 2, "head_dim": 4, "mlp": 16, "dropout": 0.0},
        "projector_hidden": 8,
        "latent_dim": 4,
        "preprocessing": {"size": 16},
        "cameras": list(TOPICS),
        "history": 2,
        "loss": {"directions": 8},
        "schedule": {"updates": 2, "policy_updates": 0, "batch": 4, "steps": 1, "warm_up": 0, "every": 2},
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(recipe))
    train_model(data=bag, out=tmp_path / "out", recipe=str(tmp_path / "two.yaml"), name="two")
    made = load_checkpoint(tmp_path / "out" / "checkpoint")
    assert made.config.cameras == CAMERAS and made.model.cameras == 2
    assert "two: family lewm" in verify(tmp_path / "out" / "checkpoint")
    assert "(frame, wrist/frame)" in (tmp_path / "out" / "checkpoint" / "README.md").read_text()


# --- goals -----------------------------------------------------------------------------------------------------------


def test_a_goal_has_one_image_per_camera():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    images = [image_message(picture, Time(), "eye") for picture in pictures]
    frames = goal_frames(images, small_lewm.config(cameras=CAMERAS))
    np.testing.assert_array_equal(frames, np.stack([preprocess(p, small_lewm.SIZE) for p in pictures]))
    (single,) = pictures[:1]
    np.testing.assert_array_equal(goal_frames(images[:1], small_lewm.config()), preprocess(single, small_lewm.SIZE))


def test_goals_with_a_wrong_number_of_images_are_refused():
    image = image_message(np.zeros((8, 8, 3), np.uint8), Time(), "eye")
    two, one = small_lewm.config(cameras=CAMERAS), small_lewm.config()
    assert refusal(goal_frames, [image], two) == "goal images: expected 2 (frame, wrist/frame), found 1"
    assert refusal(goal_frames, [image] * 3, two) == "goal images: expected 2 (frame, wrist/frame), found 3"
    assert refusal(goal_frames, [image] * 2, one) == "goal images: expected 1 (frame), found 2"
    broken = image_message(np.zeros((8, 8, 3), np.uint8), Time(), "eye")
    broken.encoding = "smell"
    assert refusal(goal_frames, [image, broken], two).startswith("goal image: ")


def test_images_published_by_jepa_ros_nodes_are_not_taken_for_a_camera():
    topics = ("/image", "/goal_image", "/frame")
    recording = SimpleNamespace(topics=[Topic(topic, IMAGE, 3) for topic in topics])
    assert [t.topic for t in image_topics(recording, "*")] == ["/image"]
    assert [t.topic for t in image_topics(recording, "goal_image")] == ["/goal_image"]
