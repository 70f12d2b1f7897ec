"""The model family lewm (arXiv 2603.19312): encoder and predictor trained together.

Checkpoints build the class in model.py, which uses encoders.py, predictor.py and, in evaluation mode, fast_rollout.py.
Start reading in model.py.
"""
