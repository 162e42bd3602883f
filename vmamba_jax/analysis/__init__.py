"""Analyses of trained models: attention of the scan, component gradients, scan trajectories, center sensitivity."""
