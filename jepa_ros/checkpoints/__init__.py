"""Checkpoints as files: which are there, what they are, what their latents look like, and how they get here."""
