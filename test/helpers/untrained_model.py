"""A checkpoint that fits the simulated robot and has learnt nothing."""

from __future__ import annotations

from pathlib import Path


def fresh_model(directory: Path, **changes) -> Path:
    """Write it to ``directory`` and return that. changes: fields of its configuration, in place of these."""
    import torch

    from jepa_ros.robot.config import load_robot
    from jepa_ros.world_model.checkpoint import build_model, save_checkpoint
    from jepa_ros.world_model.config import ModelConfig

    robot = load_robot("openarm")
    fields = 2 * len(robot.joints) + len(robot.gripper)
    config = ModelConfig.model_validate(
        {
            "name": "fresh",
            "encoder": {"type": "conv", "channels": (8, 16, 16)},
            "predictor": {"type": "causal", "width": 32, "depth": 1, "heads": 2, "head_dim": 16, "mlp": 64},
            "projector_hidden": 32,
            "latent_shape": (16,),
            "policy": {"width": 32},
            "preprocessing": {},
            "control_rate": 10.0,
            "block": 4,
            "action": {"name": "planar_velocity", "dimension": 2, "max_speed": robot.action_space.max_speed},
            "proprioception": {
                "joints": tuple(robot.joints),
                "gripper": tuple(robot.gripper),
                "mean": (0.0,) * fields,
                "std": (1.0,) * fields,
            },
            "distance": {"tolerance": 0.1, "far": 1.0},
            "surprise": {"levels": (0.5, 1.0), "errors": (0.1, 0.2), "threshold": 0.2},
            "robots": (robot.name,),
        }
        | changes
    )
    torch.manual_seed(0)
    save_checkpoint(directory, config, *build_model(config, directory))
    return directory
