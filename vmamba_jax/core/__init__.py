"""Ideas that every package uses; no Flax. Imports nothing by itself."""
