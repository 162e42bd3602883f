"""The page of a robustness study."""
