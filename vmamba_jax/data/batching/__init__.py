"""Batches as a pure function of the step, and the pipeline that decodes them."""
