"""Scans of selective state space models: three public functions, and a file or folder per backend.

Notation: `b` batch, `L` length, `G` groups (scan directions or heads that share B and C), `D = G * channels_per_group` channels,
`N` states per channel.
"""
from pallas_kernels.backends import IMPLEMENTATIONS
from pallas_kernels.platform_guard import platforms
from pallas_kernels.scan import cross_selective_scan, linear_scan, selective_scan

__all__ = ["IMPLEMENTATIONS", "cross_selective_scan", "linear_scan", "platforms", "selective_scan"]
