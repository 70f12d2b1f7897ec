"""Training, from recorded bags to a checkpoint.

Each command is one function: `train_model.train_model`, `train_heads.train_heads`, `pretraining.run.pretrain` and
`method_comparison.run.compare_methods`. Their loops share one base, `trainer.ResumableTrainer`. Start reading in
`train_model.py`.
"""
