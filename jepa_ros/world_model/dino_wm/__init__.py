"""The model family dino_wm: patch tokens of a frozen encoder, and a predictor of them that is trained.

Checkpoints build the class in model.py, which uses predictor.py. Start reading in model.py.
"""
