"""Figures, tables and one self-contained HTML page, drawn from what the programs saved and from nothing else.

A run is a folder with config.json, metrics.jsonl, timing.jsonl, results.json, evaluation.json and examples.npz, as `experiments.train` and
`experiments.evaluate` leave it. `write` makes the page of evaluated runs, `write_training` that of one run's training.
`write_analysis` makes the page of receptive fields, attention and hidden states of `experiments.analyze`.
`write_study` makes the page of a grid of models and probes, from the cells of `experiments.study`.
Inside `exported`, every page gets its tables as CSV, Markdown and LaTeX and its figures as PDF and PNG beside it.
Nothing here imports a model or JAX: a report can be drawn again on any machine.
"""
from vmamba_jax.reports import tables
from vmamba_jax.reports.adapt import adapt_text, read_adapt, write_adapt
from vmamba_jax.reports.ads.page import ads_text, render_ads, write_ads
from vmamba_jax.reports.ads.results import AdsStudy, read_ads
from vmamba_jax.reports.analysis.page import Analysis, analysis_text, read_analysis, render_analysis, write_analysis
from vmamba_jax.reports.attack_quality import attack_quality_md, render_attack_quality, write_attack_quality
from vmamba_jax.reports.certify import certify_text, read_certify, write_certify
from vmamba_jax.reports.dense.page import dense_text, render_dense, write_dense
from vmamba_jax.reports.dense.results import Dense, read_dense
from vmamba_jax.reports.exports import exported
from vmamba_jax.reports.mender.page import mender_text, render_mender, write_mender
from vmamba_jax.reports.mender.results import Mender, read_mender
from vmamba_jax.reports.page import render, write
from vmamba_jax.reports.runs import Run, read_run
from vmamba_jax.reports.study.page import Study, read_study, render_study, study_text, write_study
from vmamba_jax.reports.sweep.page import render_sweep, write_sweep
from vmamba_jax.reports.sweep.results import Sweep, read_sweep
from vmamba_jax.reports.sweep.summaries import summary_csv, summary_md, summary_tex, sweep_text
from vmamba_jax.reports.training import render_training, write_training

__all__ = ["AdsStudy", "Analysis", "Dense", "Mender", "Run", "Study", "Sweep", "adapt_text", "ads_text", "analysis_text", "attack_quality_md",
           "certify_text", "dense_text", "exported", "mender_text", "read_adapt", "read_ads", "read_analysis", "read_certify", "read_dense", "read_mender",
           "read_run", "read_study", "read_sweep", "render", "render_ads", "render_analysis", "render_attack_quality", "render_dense",
           "render_mender", "render_study", "render_sweep", "render_training", "study_text", "summary_csv", "summary_md", "summary_tex", "sweep_text",
           "tables", "write", "write_adapt", "write_ads", "write_analysis", "write_attack_quality", "write_certify", "write_dense", "write_mender",
           "write_study", "write_sweep", "write_training"]
