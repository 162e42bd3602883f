"""docs/benchmarks.md and its figures, from the files that experiments.benchmark, device_check, gpu_code and tpu_cycles write."""
from vmamba_jax.reports.benchmarks.figures import figure
from vmamba_jax.reports.benchmarks.page import EMPTY, HEAD, markdown, named, page, read, write_docs
from vmamba_jax.reports.benchmarks.records import slope

__all__ = ["EMPTY", "HEAD", "figure", "markdown", "named", "page", "read", "slope", "write_docs"]
