"""Parts of `experiments.device_check`: what is lowered, how it is prepared, how it is run, and what it is compared with."""
