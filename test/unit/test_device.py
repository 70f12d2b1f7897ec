"""Models on a GPU. There is none here: shapes and devices are followed, values are not (pretended_gpu)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import sim_arm, small_dino_wm, small_lewm, small_models, square_episodes
from helpers.fake_gpu import pretended_gpu
from jepa_ros.bags.cameras import FrameRun
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.images import BatchEncoder
from jepa_ros.planning.receding_horizon import PlanningSettings, PlanStep, RecedingHorizonController
from jepa_ros.training.pretraining import loop as pretrain_loop
from jepa_ros.training.pretraining import models as pretrain_models
from jepa_ros.training.pretraining.loop import Clips, Pretrainer
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.training.train_model import Trainer
from jepa_ros.world_model.anti_collapse import METHODS, make_anti_collapse
from jepa_ros.world_model.checkpoint import Checkpoint, build_reachability
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.device import DeviceProxy, choose_device, on_device
from jepa_ros.world_model.protocol import Context
from jepa_ros.world_model.vjepa2_ac.model import STATE_FIELDS, VJepa2Ac

HERE = torch.device("cpu")
"""Where questions come from."""


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == HERE
    with pytest.raises(InputError, match="device: expected cuda to be a GPU that torch can use, found 0 of them"):
        choose_device("cuda")
    for name in ("tpu", "gpu", "", "cuda:x", "meta"):
        with pytest.raises(InputError, match="device: expected auto, cpu, cuda, or cuda:N"):
            choose_device(name)


def test_each_torchrun_process_uses_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("cuda") == torch.device("cuda", 1) and choose_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(InputError, match="expected cuda:2 to be a GPU"):
        choose_device("cuda:2")


def test_mixed_devices_fail():
    with pretended_gpu() as gpu:
        there = torch.zeros(2, device=gpu)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_on_the_cpu_a_model_is_not_wrapped():
    model = small_lewm.fresh()
    assert on_device(model, HERE) is model


def questions(config):
    h, p, k = config.history, config.proprioception.dimension, config.action_block
    latents, states = torch.zeros(2, h, *config.latent_shape), torch.zeros(2, h, p)
    context = Context(latents, states, torch.zeros(2, h - 1, k))
    return context, (latents, states, torch.zeros(2, h, k)), torch.zeros(2, 3, k)


MODELS = {
    "lewm": lambda: (small_lewm.config(), small_lewm.fresh()),
    **{
        f"dino_wm {kind}": lambda kind=kind: (small_dino_wm.config(*kind.split()), small_dino_wm.model(*kind.split()))
        for kind in ("concat learned", "adaln rope")
    },
}


def posed():
    """V-JEPA 2-AC without its encoder, for which square patches stand in."""
    state = {"kind": "tool_pose", "gripper": STATE_FIELDS, "mean": (0.0,) * 7, "std": (1.0,) * 7}
    changes = {
        "family": "vjepa2_ac",
        "predictor": {"type": "block_causal", "width": 16, "depth": 1, "heads": 1},
        "action": {"name": "pose_delta", "dimension": 7},
        "block": 1,
        "proprioception": state,
    }
    config = ModelConfig.model_validate(small_dino_wm.config().model_dump() | changes)
    return config, VJepa2Ac(small_dino_wm.Patches(), config)


MODELS["vjepa2_ac"] = posed


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_a_model_on_a_gpu_returns_tensors_on_the_callers_device(name, training):
    config, model = MODELS[name]()
    with pretended_gpu() as gpu:
        asked = on_device(model.train(training), gpu)
        assert isinstance(asked, DeviceProxy) and asked.history == config.history
        assert {x.device for x in model.parameters()} == {gpu}
        frames = np.zeros((2, *config.frame_shape), np.uint8)
        context, past, actions = questions(config)
        for place in (HERE, gpu):
            answers = asked.predict(*(x.to(place) for x in past)), asked.rollout(context.to(place), actions)
            assert {x.device for answer in answers for x in answer} == {place}
            assert asked.encode(torch.from_numpy(frames).to(place)).device == place
        assert asked.encode(frames).device == HERE


def test_frames_of_a_bag_are_encoded_on_the_gpu_and_evaluated_on_the_cpu():
    model = small_lewm.fresh().eval()
    with pretended_gpu() as gpu:
        encoder = BatchEncoder(on_device(model, gpu))
        assert encoder.knows_training
        latents, distances = encoder.encode([np.zeros((16, 16, 3), np.uint8)] * 3)
    assert latents.shape == (3, small_lewm.LATENT) and distances.shape == (3,) and np.isfinite(distances).all()


@pytest.mark.parametrize("method", METHODS)
def test_an_update_and_a_validation_stay_on_the_gpu(method):
    config = small_models.config(latent=4)
    model, _ = small_models.fresh(config)
    made, data = make_anti_collapse(method, model, config, updates=4), square_episodes.sets()
    schedule = Schedule(updates=4, batch=16, steps=3, warm_up=1, every=2)
    weights = LossWeights(rollout=1.0, inverse_dynamics=1.0)
    with pretended_gpu() as gpu:
        trainer = Trainer(config, model.requires_grad_(True), made, data, schedule, weights, 0, gpu)
        trainer.step()
        assert {x.device for x in trainer.parameters} == {gpu}
        assert {x.grad.device for x in trainer.parameters if x.grad is not None} == {gpu}
        trainer.validate()
        assert {x.device for x in trainer.best.values()} == {gpu}


def test_pre_training_stays_on_the_gpu():
    """Of stills: in the predictor of clips a shape depends on a value, which is not there."""
    pytest.importorskip("transformers")
    clips = Clips([FrameRun(np.zeros((24, 16, 16, 3), np.uint8), np.arange(24) * 0.05, "black")], 1, 1)
    model = pretrain_models.build_masked_predictor(
        pretrain_models.EncoderSizes("ijepa", 16, 4, 1, width=24, depth=1, heads=3), 0
    )
    with pretended_gpu() as gpu:
        trainer = Pretrainer(
            model, clips, clips, pretrain_loop.PretrainingSchedule(updates=4, batch=4, warm_up=1), 0, gpu
        )
        trainer.step()
        assert {x.grad.device for x in trainer.learnt if x.grad is not None} == {gpu}
        trainer.validate()


@pytest.mark.parametrize("solver", ["icem", "gradient"])
@pytest.mark.parametrize("policy", ["policy_first", "policy_only"])
@pytest.mark.parametrize("metric", ["l2", "reachability"])
def test_a_plan_is_searched_on_the_gpu_and_returned_on_the_cpu(solver, policy, metric):
    space, joints = sim_arm.space(), tuple(sim_arm.robot().joints)
    config = small_models.config(joints, reachability={"width": 16})
    model, head = small_models.fresh(config)
    distance = build_reachability(config).eval()
    settings = PlanningSettings(budget=np.inf, solver=solver, policy=policy, metric=metric)
    with pretended_gpu() as gpu:
        parts = on_device(model, gpu), head.to(gpu), "0" * 16, Path("nowhere"), distance.to(gpu)
        controller = RecedingHorizonController(Checkpoint(config, *parts, device=gpu), space, settings)
        q = space.inverse_kinematics(np.array([0.12, -0.30]))
        controller.add_state(10.0, np.concatenate([q, np.zeros(7)]))
        for stamp in (9.6, 10.0):
            controller.add_latent(stamp, torch.zeros(4))
        controller.set_goal(torch.ones(4))
        step = controller.plan_step(10.02)
    assert isinstance(step, PlanStep) and np.isfinite(step.trajectory.positions).all()
