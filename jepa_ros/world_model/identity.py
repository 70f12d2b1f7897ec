"""Which model a checkpoint is, told by its files alone: no torch is needed."""

from __future__ import annotations

import hashlib
from pathlib import Path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
REFERENCES = ("reference.png", "reference.jpg")
"""Pictures of the training camera, of which one may lie beside config.json. For people: a model is the same without."""


def identify(directory: Path) -> str:
    """16 hex digits that differ wherever weights or configuration do; latents of two models never mix."""
    return sha256(directory / CONFIG, directory / WEIGHTS)[:16]


def sha256(*paths: Path) -> str:
    """SHA-256 (hex) of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
