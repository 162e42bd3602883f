"""The parts of `experiments.adapt`: what is measured of each run."""
