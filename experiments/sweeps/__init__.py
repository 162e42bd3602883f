"""The parts of `experiments.sweep`: the plan of runs, their records, the progress display."""
