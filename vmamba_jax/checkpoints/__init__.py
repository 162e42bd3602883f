"""Foreign weights: read safely, converted strictly, stored as Orbax checkpoints; models exported as StableHLO."""
from vmamba_jax.checkpoints.convert import convert, model_from_options, original_shapes, to_state_dict
from vmamba_jax.checkpoints.export import export_model, load_exported
from vmamba_jax.checkpoints.misfit import MisfitError
from vmamba_jax.checkpoints.source import WeightsSource, example, open_weights, read_variables
from vmamba_jax.checkpoints.store import load_variables, save_variables
from vmamba_jax.checkpoints.torch_files.read import read_torch

__all__ = ["MisfitError", "WeightsSource", "convert", "example", "export_model", "load_exported", "load_variables", "model_from_options", "open_weights",
           "original_shapes", "read_torch", "read_variables", "save_variables", "to_state_dict"]
