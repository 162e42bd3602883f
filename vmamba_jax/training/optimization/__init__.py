"""Optimizer, learning-rate schedules, layer-wise learning rates, weight-decay masks, skipped updates."""
