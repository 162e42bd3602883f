"""Models, probes and cells of `experiments.study`."""
