"""The parts of `experiments.ads`: what it measures of each run."""
