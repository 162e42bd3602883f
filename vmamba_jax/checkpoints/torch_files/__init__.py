"""PyTorch checkpoint files, read without PyTorch."""
