"""The scan of selective state space models: one public function, one file per backend.

Notation: `b` batch, `L` length, `G` groups (scan directions or heads that share B and C), `D = G * channels_per_group` channels,
`N` states per channel.
"""
from pallas_kernels.dispatch import IMPLEMENTATIONS
from pallas_kernels.scan import linear_scan, selective_scan

__all__ = ["IMPLEMENTATIONS", "linear_scan", "selective_scan"]
