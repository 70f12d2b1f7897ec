"""`jepa_ros train policy`: new heads on a model that stays as it is, and bags and models that it must refuse."""

import json

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from safetensors.torch import load_file
from typer.testing import CliRunner

from helpers import object_bag, reach_bag, sim_arm, small_dino_wm, small_models, square_episodes
from jepa_ros import cli
from jepa_ros.bags.typestore import typestore
from jepa_ros.commands import training
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.training.heads import fit_heads
from jepa_ros.training.losses import policy_loss
from jepa_ros.training.recipe import Schedule
from jepa_ros.training.train_heads import check_memory, train_heads
from jepa_ros.world_model.checkpoint import build_model, load_checkpoint, save_checkpoint
from jepa_ros.world_model.config import ReachabilityConfig

SCHEDULE = Schedule(policy_updates=30, policy_batch=64, warm_up=5, every=20)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return object_bag.write(tmp_path_factory.mktemp("bag"))


def made_model(directory, **changes):
    """A model for the arm of the bags, as old ones are: with a policy alone."""
    robot = sim_arm.robot()
    config = small_models.config(tuple(robot.joints), tuple(robot.gripper), **changes)
    save_checkpoint(directory, config, *small_models.fresh(config))
    (directory / "README.md").write_text("# tiny\n")
    (directory / "reference.png").write_bytes(b"a picture")
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return made_model(tmp_path_factory.mktemp("model") / "old")


@pytest.fixture(scope="module")
def trained(model, bag, tmp_path_factory):
    """The folder of a whole run."""
    out = tmp_path_factory.mktemp("trained")
    assert train_heads(model=str(model), data=bag, out=out, objects=["puck=/puck"], updates=30) == 0
    return out


def test_training_heads_does_not_change_the_world_model(model, trained):
    before, after = (load_file(d / "model.safetensors") for d in (model, trained / "checkpoint"))
    kept = [name for name in before if name.startswith("model.")]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert {name for name in after if name.startswith("model.")} == set(kept)
    assert not torch.equal(before["policy.layers.0.weight"], after["policy.layers.0.weight"])
    configs = [json.loads((d / "config.json").read_text()) for d in (model, trained / "checkpoint")]
    assert [key for key in configs[0] if configs[0][key] != configs[1][key]] == ["reachability", "probes"]


def test_probes_only_refits_the_probes_and_changes_nothing_else(trained, bag, tmp_path):
    """No object is given: the probe of the puck is kept."""
    model = trained / "checkpoint"
    before, old = load_file(model / "model.safetensors"), load_checkpoint(model)
    assert train_heads(model=str(model), data=bag, out=tmp_path, probes_only=True) == 0
    after, new = load_file(tmp_path / "checkpoint" / "model.safetensors"), load_checkpoint(tmp_path / "checkpoint")
    assert set(after) == set(before)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("probes."))
    assert list(new.probes) == ["tool", "puck", "joints"] and torch.equal(
        new.probes["puck"].weights, old.probes["puck"].weights
    )
    assert new.config == old.config
    card = (tmp_path / "checkpoint" / "README.md").read_text()
    assert "Probes were fitted on the frozen model" in card and "--probes-only --seed 0" in card
    with pytest.raises(InputError, match="--updates: has no effect with --probes-only"):
        train_heads(model=str(model), data=bag, out=tmp_path / "no", probes_only=True, updates=5)


def test_training_writes_a_checkpoint_with_all_heads_a_card_and_metrics(model, trained):
    checkpoint = load_checkpoint(trained / "checkpoint")
    assert checkpoint.policy is not None and checkpoint.reachability is not None
    assert (
        list(checkpoint.probes) == ["tool", "puck", "joints"] and checkpoint.model_id != load_checkpoint(model).model_id
    )
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["model_id"] == checkpoint.model_id and summary["world_model"] == load_checkpoint(model).model_id
    errors = summary["heads"]["probe_error"]
    assert {name: pytest.approx(p.error, rel=1e-4) for name, p in checkpoint.probes.items()} == errors
    assert {"0", "8"} <= set(summary["heads"]["policy_error"])
    assert -1 <= summary["heads"]["reachability_spearman"] <= 1
    card = (trained / "checkpoint" / "README.md").read_text()
    assert (trained / "checkpoint" / "reference.png").read_bytes() == b"a picture"
    assert card.startswith("# tiny") and "train heads --model" in card and "--object puck=/puck" in card
    page = (trained / "report.html").read_text()
    assert all(
        f"<h2>{word}" in page for word in ("Policy and learned", "Ticks to go", "Probe of tool", "Probe of puck")
    )


def test_the_same_seed_gives_the_same_heads(model, bag, trained, tmp_path):
    train_heads(model=str(model), data=bag, out=tmp_path, objects=["puck=/puck"], updates=30)
    one, same = (load_file(d / "checkpoint" / "model.safetensors") for d in (trained, tmp_path))
    assert one.keys() == same.keys() and all(torch.equal(one[name], same[name]) for name in one)


def test_existing_heads_are_replaced(trained, bag, tmp_path):
    assert train_heads(model=str(trained / "checkpoint"), data=bag, out=tmp_path, seed=1, updates=5) == 0
    assert list(load_checkpoint(tmp_path / "checkpoint").probes) == ["tool", "joints"]


def test_a_model_without_policy_and_proprioception_gets_heads(bag, tmp_path):
    config = small_models.config((), policy=None)
    save_checkpoint(tmp_path / "blind", config, *build_model(config, tmp_path))
    assert train_heads(model=str(tmp_path / "blind"), data=bag, out=tmp_path / "out", updates=5) == 0
    assert load_checkpoint(tmp_path / "out" / "checkpoint").reachability is not None


def test_a_model_of_patch_tokens_gets_heads(bag, tmp_path):
    small_dino_wm.from_directory(tmp_path)
    given = small_dino_wm.made_config(tmp_path, "adaln").model_dump()
    given |= {"proprioception": {}, "block": 4, "name": "patches", "robots": ("openarm",)}
    given["action"] = {"name": "planar_velocity", "dimension": 2, "max_speed": 0.2}
    config = type(small_models.config()).model_validate(given)
    (tmp_path / "model").mkdir()
    (tmp_path / "encoder").rename(tmp_path / "model" / "encoder")
    save_checkpoint(tmp_path / "model", config, *build_model(config, tmp_path / "model"))
    assert train_heads(model=str(tmp_path / "model"), data=bag, out=tmp_path / "out", updates=5) == 0
    found = load_checkpoint(tmp_path / "out" / "checkpoint")
    assert found.probes["tool"].weights.shape == (config.latent_shape[-1] + 1, 3)
    frame = torch.zeros(2, *config.frame_shape, dtype=torch.uint8)
    latents = found.model.encode(frame)
    assert found.probes["tool"].read(latents).shape == (2, 3)
    assert found.reachability(latents.flatten(1), latents.flatten(1), torch.zeros(2, 0)).shape == (2,)


def test_latents_that_exceed_the_memory_are_refused():
    with pytest.raises(InputError, match="need 400000.0 GB .*give a bag with fewer episodes"):
        check_memory(small_models.config(latent=1000), 10**11)


def refusal(**options):
    with pytest.raises(InputError) as error:
        train_heads(**options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_model_for_another_robot_is_refused(bag, tmp_path):
    config = small_models.config(("shoulder", "elbow"))
    save_checkpoint(tmp_path / "other", config, *small_models.fresh(config))
    text = refusal(model=str(tmp_path / "other"), data=bag, out=tmp_path)
    assert "expected the joints ['shoulder', 'elbow'], found" in text


def without(bag, path, topic):
    """A copy of a bag that lacks one topic."""
    types = typestore()
    with Reader(bag) as reader, Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kept = [c for c in reader.connections if c.topic != topic]
        copies = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=types) for c in kept}
        for connection, stamp, raw in reader.messages(kept):
            writer.write(copies[connection.id], stamp, raw)
    return path


@pytest.mark.parametrize(
    "topic, words", [("/joint_states", "topics joint_states"), ("/robot_description", "topic robot_description")]
)
def test_a_bag_without_a_required_topic_is_refused(model, bag, tmp_path, topic, words):
    data = without(bag, tmp_path / "bag", topic)
    assert f"expected the {words}" in refusal(model=str(model), data=data, out=tmp_path / "out")


def test_a_bag_of_other_joints_is_refused(model, tmp_path, monkeypatch):
    robot = sim_arm.robot()
    renamed = robot.model_copy(update={"gripper": ["left_finger"]})
    monkeypatch.setattr(sim_arm, "robot", lambda: renamed)
    data = reach_bag.write(tmp_path / "bag")
    text = refusal(model=str(model), data=data, out=tmp_path / "out")
    assert "expected usable joint states, found none" in text and robot.gripper[0] in text


def test_too_short_episodes_are_refused(model, tmp_path):
    data = reach_bag.write(tmp_path / "bag", ticks=7)
    assert "expected train episodes of 8 ticks" in refusal(model=str(model), data=data, out=tmp_path / "out")


def test_a_missing_object_topic_is_refused_with_the_topics_in_the_bag(model, bag, tmp_path):
    text = refusal(model=str(model), data=bag, out=tmp_path, objects=["cup=/cup"])
    assert "positions of cup on the topic /cup" in text and "/puck (geometry_msgs/msg/PoseStamped, " in text


def test_an_object_missing_in_the_test_episodes_is_refused(model, tmp_path):
    data = object_bag.write(tmp_path, episodes=range(5))
    text = refusal(model=str(model), data=data, out=tmp_path, objects=["puck=/puck"], updates=5)
    assert "object puck: expected positions in training and test episodes" in text


def test_a_two_camera_model_requires_both_image_topics(bag, tmp_path):
    path = made_model(tmp_path / "two", cameras=("left/frame", "right/frame"))
    assert "has 2 views (left/frame, right/frame), but 1 image" in refusal(model=str(path), data=bag, out=tmp_path)


def test_the_input_model_is_not_overwritten(trained, bag):
    text = refusal(model=str(trained / "checkpoint"), data=bag, out=trained)
    assert "would overwrite the model itself" in text


def test_train_model_and_train_heads_have_their_own_options(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(training, "call", lambda target, **options: calls.append((target, options)))

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, ["train", *arguments])

    assert "heads" in invoke("--help").output and "--recipe" in invoke("model", "--help").output
    (tmp_path / "bag.mcap").touch()
    data = ("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert invoke("model", *data, "--updates", "7").exit_code == 0
    assert invoke("heads", "--model", "openarm_reach", *data, "--object", "a=/b", "--object", "c=/d").exit_code == 0
    (first, options), (second, others) = calls
    assert first == "jepa_ros.training.train_model:train_model" and options["updates"] == 7
    assert second == "jepa_ros.training.train_heads:train_heads" and list(others["objects"]) == ["a=/b", "c=/d"]
    nothing = invoke("model")
    assert nothing.exit_code == 2 and len(calls) == 2
    assert "missing required option --data" in nothing.stderr


def test_policy_training_reduces_the_loss_and_is_repeatable():
    data = square_episodes.sets()
    latents = {s: torch.from_numpy(part.tool).float() / 4 for s, part in data.items()}
    config = small_models.config(latent=2, reachability=ReachabilityConfig(width=16))
    made = [fit_heads(config, latents, data, SCHEDULE, 0, ProgressDisplay(quiet=True)) for _ in range(2)]
    assert made[0].curve == made[1].curve and [v["update"] for v in made[0].curve] == [20, 30]
    _, untrained = small_models.fresh(config)
    generator = torch.Generator().manual_seed(0)
    before = policy_loss(untrained, latents["val"], data["val"], 512, 4, generator).item()
    assert made[0].curve[-1]["policy_val"] < before
    assert not made[0].probes, "episodes without positions have none"


class Stops(ProgressDisplay):
    """Interrupts the training after an update."""

    def update(self, task, completed, note="", total=None):
        if completed == 11:
            raise KeyboardInterrupt


def test_interrupted_head_training_is_resumed_to_the_same_weights(tmp_path, monkeypatch):
    data = square_episodes.sets()
    latents = {s: torch.from_numpy(part.tool).float() / 4 for s, part in data.items()}
    config = small_models.config(latent=2, reachability=ReachabilityConfig(width=16))
    whole = fit_heads(config, latents, data, SCHEDULE, 0, ProgressDisplay(quiet=True))
    monkeypatch.setattr("jepa_ros.training.trainer.ResumableTrainer.run.__defaults__", (0.0,))
    state = tmp_path / "heads.state"
    with pytest.raises(KeyboardInterrupt):
        fit_heads(config, latents, data, SCHEDULE, 0, Stops(quiet=True), state)
    assert state.exists()
    resumed = fit_heads(config, latents, data, SCHEDULE, 0, ProgressDisplay(quiet=True), state)
    assert not state.exists() and resumed.curve == whole.curve
    for one, other in ((whole.policy, resumed.policy), (whole.reachability, resumed.reachability)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_heads_are_trained_independently():
    data = square_episodes.sets()
    latents = {s: torch.from_numpy(part.tool).float() / 4 for s, part in data.items()}
    both, alone = (
        fit_heads(config, latents, data, SCHEDULE, 0, ProgressDisplay(quiet=True))
        for config in (small_models.config(latent=2, reachability=r) for r in (ReachabilityConfig(width=16), None))
    )
    assert alone.reachability is None
    assert [c["policy"] for c in both.curve] == [c["policy"] for c in alone.curve]


def test_training_heads_does_not_change_the_global_random_state():
    data = square_episodes.sets()
    latents = {s: torch.from_numpy(part.tool).float() / 4 for s, part in data.items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_heads(small_models.config(latent=2), latents, data, SCHEDULE, 0, ProgressDisplay(quiet=True))
    assert torch.equal(torch.rand(3), expected)


def test_without_updates_there_is_no_policy():
    data = square_episodes.sets()
    latents = {s: torch.from_numpy(part.tool).float() for s, part in data.items()}
    config = small_models.config(latent=2, reachability=ReachabilityConfig())
    none = Schedule(policy_updates=0)
    heads = fit_heads(config, latents, data, none, 0, None)  # nothing is trained, so nothing is shown
    described = heads.describe(config)
    assert heads.policy is None and described.policy is None and described.reachability is None


class Spy(torch.nn.Module):
    """Records its inputs and returns zero actions."""

    max_ticks = 9

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, now, goal, state, ticks):
        self.seen.append((now, goal, ticks))
        return torch.zeros(len(now), 8)


def numbered(part):
    """Latents (N, 2) that are the row and the episode."""
    episode = np.repeat(np.arange(len(part.episodes)), part.lengths + 1)
    return torch.stack([torch.arange(len(part)), torch.from_numpy(episode)], 1).float()


def test_the_policy_is_trained_with_goals_of_the_same_episode():
    """With a goal in the same episode: now, soon, or at most max_ticks later."""
    part, spy = square_episodes.sets()["train"], Spy()
    policy_loss(spy, numbered(part), part, 2000, 4, torch.Generator().manual_seed(0))
    ((now, goal, ticks),) = spy.seen
    assert torch.equal(now[:, 1], goal[:, 1]), "another episode's"
    assert torch.equal(goal[:, 0] - now[:, 0], ticks)
    assert ticks.min() == 0 and ticks.max() == 9


def test_at_the_goal_the_target_action_is_zero():
    part, spy = square_episodes.sets()["train"], Spy()
    spy.max_ticks = 0
    assert policy_loss(spy, numbered(part), part, 500, 4, torch.Generator().manual_seed(0)) == 0.0
    spy.max_ticks = 1
    one = policy_loss(spy, numbered(part), part, 4000, 4, torch.Generator().manual_seed(0))
    whole = float(np.square(part.actions).mean())
    assert one == pytest.approx(whole / 8, rel=0.2), "half of them a tick before it: a quarter of the block counts"
