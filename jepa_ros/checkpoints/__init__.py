"""Checkpoints as files: `jepa_ros models list, inspect, verify, install`.

run.py has one function for each command. It calls facts.py, install.py and, to describe latents on recorded episodes,
latent_report.py. Start reading in run.py; a checkpoint's format is in world_model/checkpoint.py.
"""
