"""The parts of `experiments.mender`: its runs, and what is measured of each."""
