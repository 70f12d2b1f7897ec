"""Checkpoints as files: `jepa_ros models list, inspect, verify, install`.

run.py has one function for each command, and calls catalogue.py, facts.py, install.py and, to describe latents on
recorded episodes, latent_space.py. Start reading in run.py; a checkpoint's format is in world_model/checkpoint.py.
"""
