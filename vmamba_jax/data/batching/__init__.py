"""Batches as a pure function of the step, the pipeline that decodes them, and the meter of the input rate."""
