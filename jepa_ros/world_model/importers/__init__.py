"""Importers of official checkpoints of other code bases, one file for each family; common.py has what they share.

`jepa_ros import lewm` and `vjepa2-ac` call them; they write a checkpoint by world_model/checkpoint.py. Start reading in
lewm.py.
"""
