"""Reads PyTorch checkpoint files without PyTorch."""
