"""A recipe that trains a very small LeWM within seconds."""

TINY = {
    "family": "lewm",
    "encoder": {"type": "conv", "channels": [4, 8]},
    "predictor": {"type": "causal", "width": 16, "depth": 1, "heads": 2, "head_dim": 8, "mlp": 32, "dropout": 0.1},
    "projector_hidden": 16,
    "latent_dim": 4,
    "policy": {"width": 16, "depth": 1},
    "preprocessing": {"size": 16},
    "history": 2,
    "loss": {"directions": 16},
    "schedule": {"updates": 60, "policy_updates": 20, "batch": 8, "steps": 2, "warm_up": 5, "every": 20},
}
