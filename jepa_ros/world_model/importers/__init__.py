"""Checkpoints of other code bases, turned into ours."""
