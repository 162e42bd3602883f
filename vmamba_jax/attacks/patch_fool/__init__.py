"""Patch-Fool (Fu et al. 2022, arXiv 2203.08392): unbounded perturbations of a few patches."""
