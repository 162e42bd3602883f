"""The parts of `experiments.dense`: what is measured of each run."""
