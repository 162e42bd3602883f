"""The parts of an analysis: one function per part, (model, its section of the config, loop) -> (JSON, arrays)."""
import numpy as np

from experiments.robustness_study.probes import NotApplicable
from vmamba_jax import analysis, data, models
from vmamba_jax.analysis import blocks
from vmamba_jax.analysis.hidden_attention import FORMS
from vmamba_jax.core.images import unit_interval

STATE_SPACE, ATTENTION = (models.VMamba, models.Vim), (models.VMamba, models.Vim, models.ViT, models.Swin)


def receptive_field(model, section, loop):
    """The field as an array, its contribution scores as JSON."""
    found = analysis.receptive_field(model.classifier, model.variables, _first(model, section.images), **loop)
    field = found.pop("map")
    return found | {"sides": list(field.shape), "contribution": analysis.contribution(field, section.shares)}, {"field": field.astype(np.float32)}


def attention(model, section, loop):
    """Activation maps of query patches over photos: of one block, of its scans or heads, in each form, and rolled out through its stage.

    The arrays are (photos, ...): "photos" uint8; "queries" (n, q, rows, columns); "diagonal", "received"; "class", if the model has a class token;
    "rollout" (n, q, rows, columns); "each" (n, K, rows, columns) and, for scans, "forms" (n, 5, rows, columns) of the first query.
    """
    inner = model.classifier.model
    if not isinstance(inner, ATTENTION):
        raise NotApplicable(f"{type(inner).__name__} has neither scans nor attention")
    if isinstance(inner, models.VMamba) and inner.scan_pattern == "cascade":
        raise NotApplicable("the cascade's scans do not cover the map")
    photos, _ = model.source.gather(np.arange(min(section.photos, len(model.source))))
    images = unit_interval(photos)
    block = section.block if section.block >= 0 else _usual_block(inner)
    of = lambda **options: analysis.attention_matrix(model.classifier, model.variables, images, block, **options)
    whole = of(normalization="absolute")
    places = [tuple(int(f * side) for f, side in zip(query, whole.grid, strict=True)) for query in section.queries]
    stage = None if isinstance(inner, (models.Vim, models.ViT)) else blocks.place(inner, block)[0]
    rolled = analysis.attention_rollout(model.classifier, model.variables, images, stage)
    queries = lambda found: np.stack([found.query(*place) for place in places], 1)
    arrays = {"photos": photos, "queries": queries(whole), "rollout": queries(rolled), "diagonal": whole.diagonal(), "received": whole.received(),
              "each": of(combine="each", normalization="absolute").query(*places[0])}
    if whole.class_positions:
        arrays["class"] = whole.class_query()
    if isinstance(inner, STATE_SPACE):
        arrays["forms"] = np.stack([of(form=form, normalization="absolute").query(*places[0]) for form in FORMS], 1)
    return ({"block": block, "stage": stage, "grid": list(whole.grid), "places": places, "forms": list(FORMS) if "forms" in arrays else []},
            {name: np.asarray(x) if name == "photos" else np.asarray(x, np.float32) for name, x in arrays.items()})


def statistics(model, section, loop):
    """Statistics of the hidden states, JSON alone."""
    if not isinstance(model.classifier.model, STATE_SPACE):
        raise NotApplicable(f"{type(model.classifier.model).__name__} has no scans")
    return analysis.state_statistics(model.classifier, model.variables, _first(model, section.images), **loop), {}


PARTS = {"receptive_field": receptive_field, "attention": attention, "statistics": statistics}
PER_CHECKPOINT = ("receptive_field", "statistics")  # of the parts, those of a run's other checkpoints


def _first(model, n):
    """The first n images of the model's source, which is already a random subset."""
    return data.Subset(model.source, np.arange(min(n, len(model.source))))


def _usual_block(model):
    """The second block of the third stage, as in the paper's figures, or the last such stage that there is; without stages, the last block."""
    if isinstance(model, (models.Vim, models.ViT)):
        return model.depth - 1
    stage = min(2, len(model.depths) - 1)
    return sum(model.depths[:stage]) + min(1, model.depths[stage] - 1)
