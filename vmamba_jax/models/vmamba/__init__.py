"""VMamba (Liu et al. 2024, arXiv 2401.10166)."""
