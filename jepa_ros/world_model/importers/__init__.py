"""Importers of official checkpoints of other code bases: one file for each family, and what they share.

`jepa_ros models import lewm|vjepa2_ac` calls them; they write a checkpoint of ours by world_model/checkpoint.py.
Start reading in lewm.py.
"""
