"""The page of `experiments.analyze`: receptive fields, attention over photos, statistics of hidden states."""
