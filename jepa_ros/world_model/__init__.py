"""Joint-embedding predictive world models: encoders, predictors, losses, checkpoints. Knows nothing of ROS."""
