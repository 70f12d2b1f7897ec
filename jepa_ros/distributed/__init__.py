"""What makes training in several processes (torchrun) equal to one process on the whole batch."""
