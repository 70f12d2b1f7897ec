"""Datasets built from the bags of foreign_bags, with the mapping file that they need."""

import json

import yaml

from jepa_ros.datasets.build import build_dataset
from jepa_ros.datasets.store import Dataset

MAPPING = {
    "views": [{"topic": "/camera/image"}],
    "joint_states": {"topic": "/joint_states", "joints": ["shoulder", "elbow"], "gripper": ["gripper_left"]},
    "actions": {"source": "states"},
}


def mapping_file(tmp_path, **changes):
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(MAPPING | changes))
    return path


def build(tmp_path, bag, changes=None, **options):
    """The dataset of a foreign bag, and its summary."""
    out = tmp_path / "data"
    build_dataset(bags=[bag], out=out, mapping=mapping_file(tmp_path, **changes or {}), size=16, **options)
    return Dataset(out), json.loads((out / "summary.json").read_text())


def greys(data, entry):
    return data.rows(entry, "frames")[:, 0, 0, 15, 0].astype(int)
