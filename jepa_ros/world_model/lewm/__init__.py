"""The model family lewm (arXiv 2603.19312): encoder and predictor trained together.

model.py is what checkpoints build; it calls encoders.py, predictor.py and, in evaluation mode, fast_rollout.py. Start
reading in model.py.
"""
