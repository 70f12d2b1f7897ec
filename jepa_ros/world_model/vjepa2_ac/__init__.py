"""The model family vjepa2_ac (arXiv 2506.09985): a frozen V-JEPA 2 encoder and a predictor of its patches.

Checkpoints build the class in model.py, which uses predictor.py. Start reading in model.py.
"""
