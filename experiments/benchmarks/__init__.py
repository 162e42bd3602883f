"""Cases that experiments.benchmark times."""
