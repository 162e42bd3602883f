"""What a run needs around its steps: batches, progress, metrics, checkpoints, signals, the folder lock."""
