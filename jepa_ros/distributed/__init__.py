"""Training in several processes (torchrun) with the results of one process on the whole batch.

Models and losses call batch_norm.py and ranks.py, which need nothing of the rest of jepa_ros. Start reading in
ranks.py.
"""
