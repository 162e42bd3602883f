"""The cases that `experiments.benchmark` times."""
