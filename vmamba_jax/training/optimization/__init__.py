"""Optimizer, learning-rate schedules, layer-wise rates, weight decay masks, skipped updates."""
