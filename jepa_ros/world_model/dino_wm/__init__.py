"""The model family dino_wm: patch tokens of a frozen encoder, and a predictor of them that is trained.

model.py is what checkpoints build; it calls predictor.py. Start reading in model.py.
"""
