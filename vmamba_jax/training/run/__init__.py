"""The parts of a run around its steps: batches, progress, metrics, checkpoints, signals, the folder lock."""
