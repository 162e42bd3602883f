"""Figures, tables and one self-contained HTML page, drawn from what the programs saved and from nothing else.

A run is a folder with config.json, metrics.jsonl, results.json, evaluation.json and examples.npz, as `experiments.train` and
`experiments.evaluate` leave it. Nothing here imports a model or JAX: a report can be drawn again on any machine.
"""
from vmamba_jax.reports import tables
from vmamba_jax.reports.page import render, write
from vmamba_jax.reports.runs import Run, read_run

__all__ = ["Run", "read_run", "render", "tables", "write"]
