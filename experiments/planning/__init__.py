"""What `experiments.plan` is made of: chips, compiled programs, their counts, and the estimate."""
