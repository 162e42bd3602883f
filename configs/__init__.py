"""One `get_config(arg=None)` an experiment; everything it sets may be overridden by `--config.field=value`."""
