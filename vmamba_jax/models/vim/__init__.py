"""Vim (Zhu et al. 2024, arXiv 2401.09417)."""
