"""Attacks on dense predictions: losses that are maps over pixels, and gradient ascent on them."""
