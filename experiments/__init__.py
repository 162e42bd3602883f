"""Runnable programs: read a config, call the package, save the results."""
