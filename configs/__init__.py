"""One `get_config(arg=None)` per experiment; `--config.field=value` overrides any field. base.py lists every key."""
