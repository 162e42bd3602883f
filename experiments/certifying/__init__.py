"""The parts of `experiments.certify`: what is measured of each run."""
