"""From recorded bags to a checkpoint: data, losses, the training loop and its report."""
