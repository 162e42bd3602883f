"""Attention of one block as a matrix of queries and keys: a transformer's probabilities, or the hidden attention of selective scans.

Source: VMamba (Liu et al., arXiv 2401.10166), section on activation maps; the forms: `hidden_attention.FORMS`.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.analysis import blocks, hidden_attention
from vmamba_jax.core import checks, scan_orders
from vmamba_jax.core.results import Shown, tables_of
from vmamba_jax.models.baselines.swin import Swin
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.models.layers import attention as windows
from vmamba_jax.models.vim.vim import Vim, class_positions, raster_order
from vmamba_jax.models.vmamba.vmamba import VMamba

TRANSFORMERS = (ViT, Swin)
COMBINATIONS = ("sum", "mean", "each")


@dataclasses.dataclass(frozen=True)
class Attention(Shown):
    """Attention of one block, or rolled out through several.

    Attributes:
        matrix: (b, L, L), or (b, K, L, L) for each of K scans or heads: query i, key j, in raster order with class tokens at their positions.
        grid: rows and columns of the tokens without the class tokens.
        class_positions: positions of the class tokens among the L.
    """
    matrix: jax.Array
    grid: tuple
    class_positions: tuple = ()

    def tables(self):
        """{"received": the mean over images, scans and heads, rows by columns}."""
        return tables_of({"received": np.asarray(self.received()).reshape(-1, *self.grid).mean(0)})

    def query(self, row, column):
        """Activation map (b, ..., rows, columns) of the patch at a row and a column: what it takes from every patch."""
        for name, value, side in (("row", row, self.grid[0]), ("column", column, self.grid[1])):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < side:
                raise ValueError(f"{name}={value!r}: expected an index below {side}, from 0")
        return self._map(self.matrix[..., self._patches()[row * self.grid[1] + column], :])

    def class_query(self):
        """Activation map (b, ..., rows, columns) of the class token, the mean over class tokens.

        Raises:
            ValueError: a model without class token.
        """
        if not self.class_positions:
            raise ValueError("class_positions=(): expected a model with a class token")
        return self._map(self.matrix[..., np.array(self.class_positions), :].mean(-2))

    def diagonal(self):
        """What every patch takes from itself, (b, ..., rows, columns)."""
        return self._map(jnp.diagonal(self.matrix, axis1=-2, axis2=-1))

    def received(self):
        """What every patch gives, the mean over queries, (b, ..., rows, columns)."""
        return self._map(self.matrix.mean(-2))

    def _patches(self):
        return np.delete(np.arange(self.matrix.shape[-1]), np.array(self.class_positions, int))

    def _map(self, tokens):
        return tokens[..., self._patches()].reshape(*tokens.shape[:-1], *self.grid)


def attention_matrix(model, variables, images, block, *, form=None, combine=None, normalization=None, raster=True, mean=None, std=None) -> Attention:
    """`Attention` of one block.

    Args:
        model: VMamba, Vim, ViT or Swin, in any form that `logits_fn` accepts. Swin's windows are put into one matrix of all tokens, 0 between windows.
        variables: the model's.
        images: (b, H, W, channels) in [0, 1].
        block: index over the whole network, from 0.
        form: of a scan, one of `hidden_attention.FORMS`; None: "CB_delta_decay", the matrix that the scan applies. Transformers: only None.
        combine: scans or heads: "sum", "mean" or "each"; None: the sum of scans, as in the block, or the mean of heads.
        normalization: None, "min_max" or "absolute", see `hidden_attention.normalized`: of the sum; of each matrix before "mean".
        raster: False: queries and keys of a scan are in its own order, only with combine="each".
        mean, std: as for `logits_fn`.

    Raises:
        TypeError: another model.
        ValueError: a VMamba without scans or with the cascade pattern, or a wrong argument.
    """
    classifier = blocks.check_family(as_classifier(model, mean, std), (VMamba, Vim, *TRANSFORMERS))
    blocks.check_block(classifier.model, block)
    options = _options(classifier.model, form, combine, normalization, raster)
    (states,), grid = _recorded(classifier, (block,), variables, images)
    return _attention(classifier.model, _compiled(classifier.model, block, grid, **options)(states), grid)


def attention_rollout(model, variables, images, stage=None, *, form=None, combine=None, normalization="usual", mean=None, std=None) -> Attention:
    """`Attention` rolled out through the blocks of one stage: the product of 0.5 (M + I), each row divided by its sum.

    Args:
        stage: index from 0; None for Vim and ViT, which have no stages: all blocks.
        normalization: of each matrix, "absolute" or "min_max", or for transformers None; the rows of a scan's matrix may sum to 0. "usual": "absolute"
            for scans, None for transformers.
        model, variables, images, form, combine, mean, std: as for `attention_matrix`.
    """
    classifier = blocks.check_family(as_classifier(model, mean, std), (VMamba, Vim, *TRANSFORMERS))
    chosen = blocks.stage_blocks(classifier.model, stage)
    blocks.mixers(classifier.model)
    if normalization == "usual":
        normalization = None if isinstance(classifier.model, TRANSFORMERS) else "absolute"
    if normalization is None and not isinstance(classifier.model, TRANSFORMERS):
        raise ValueError("normalization=None: expected 'absolute' or 'min_max' for scans, the rows of whose matrices may sum to 0")
    options = _options(classifier.model, form, combine, normalization, True)
    recorded, grid = _recorded(classifier, chosen, variables, images)
    matrices = [_compiled(classifier.model, block, grid, **options)(states) for block, states in zip(chosen, recorded, strict=True)]
    return _attention(classifier.model, jax.jit(hidden_attention.rolled_out)(matrices), grid)


def _options(model, form, combine, normalization, raster):
    if isinstance(model, TRANSFORMERS):
        if form is not None or not raster:
            raise ValueError(f"form={form!r}, raster={raster!r} for {type(model).__name__}: expected None and True, since it has no scans")
    else:
        form = checks.choice("form", "CB_delta_decay" if form is None else form, hidden_attention.FORMS)
    combine = ("mean" if isinstance(model, TRANSFORMERS) else "sum") if combine is None else checks.choice("combine", combine, COMBINATIONS)
    checks.choice("normalization", normalization, (None, *hidden_attention.NORMALIZATIONS))
    if not raster and combine != "each":
        raise ValueError(f"raster=False, combine={combine!r}: expected combine='each', since every scan has another order")
    return {"form": form, "combine": combine, "normalization": normalization, "raster": bool(raster)}


def _attention(model, matrix, grid):
    positions = class_positions(model.class_token, grid[0] * grid[1]) if isinstance(model, Vim) else (0,) if isinstance(model, ViT) else ()
    return Attention(matrix, grid, positions)


def _recorded(classifier, chosen, variables, images):
    """(states of the chosen blocks, a dict for each; rows and columns of their tokens). One program of the model serves all forms."""
    found, empty = _states(classifier, chosen)(variables, images)
    return found, empty.shape[:2]


@functools.lru_cache(maxsize=64)
def _states(classifier, chosen):
    """Compiled function (variables, images) -> (states of the chosen blocks; an empty array whose shape is (rows, columns, 0) of their tokens' grid)."""
    model, names = classifier.model, ("attention",) if isinstance(classifier.model, TRANSFORMERS) else ("delta", "A", "B", "C")

    def run(variables, images):
        recorded = classifier(variables, images, mutable=["intermediates"])[1]["intermediates"]
        paths = [blocks.mixers(model)[block] for block in chosen]
        found = [{name: blocks.states(recorded, path)[name][0] for name in names} for path in paths]
        return found, jnp.zeros((*_grid(model, recorded, chosen[0], images.shape), 0))
    return jax.jit(run)


def _grid(model, recorded, block, shape):
    """Rows and columns of the tokens of a block."""
    if isinstance(model, Vim):
        return blocks.vim_grid(model, shape)
    if isinstance(model, ViT):
        return tuple(side // model.patch_size for side in shape[1:3])
    return recorded[f"stage{blocks.place(model, block)[0]}_blocks"][0].shape[1:3]


@functools.lru_cache(maxsize=64)
def _compiled(model, block, grid, form, combine, normalization, raster):
    """Compiled function of a block's states -> its matrix (b, L, L), or (b, K, L, L) for combine="each"."""
    return jax.jit(lambda states: _combined(_matrices(model, states, block, grid, form, raster), combine, normalization))


def _combined(matrices, combine, normalization):
    if combine == "sum":
        return hidden_attention.normalized(matrices.sum(1), normalization)
    matrices = hidden_attention.normalized(matrices, normalization)
    return matrices.mean(1) if combine == "mean" else matrices


def _matrices(model, states, block, grid, form, raster):
    """Matrices (b, K, L, L) of one block's scans or heads."""
    if isinstance(model, ViT):
        return states["attention"]
    if isinstance(model, Swin):
        stage, within = blocks.place(model, block)
        return _joined(states["attention"], grid, *model.windows(stage)[within], model.padding)
    delta, A, B, C = (states[name] for name in ("delta", "A", "B", "C"))
    if isinstance(model, Vim):
        order = raster_order(model, *grid)
        found = hidden_attention.attention_of_scans(delta, A, B, C, blocks.vim_routes(delta.shape[2]), form, raster)
        return found[..., order, :][..., order] if raster else found
    flat = lambda x: x.reshape(*x.shape[:2], grid[0] * grid[1], -1)
    return hidden_attention.attention_of_scans(flat(delta), A, flat(B), flat(C), scan_orders.routes(model.scan_pattern, *grid), form, raster)


def _joined(attention, grid, window, shift, padding):
    """Probabilities within windows, (b * windows, heads, n, n), as matrices of all tokens, (b, heads, L, L); padded tokens are left out."""
    length = grid[0] * grid[1]
    positions = windows.to_windowed_map(1 + jnp.arange(length).reshape(1, *grid, 1), window, shift, padding)
    positions = windows.partition(positions, window)[..., 0]                           # (windows, n), 0: padded
    attention = attention.reshape(-1, len(positions), *attention.shape[1:]).swapaxes(1, 2)
    found = jnp.zeros((*attention.shape[:2], length + 1, length + 1), attention.dtype)
    return found.at[:, :, positions[:, :, None], positions[:, None]].set(attention)[:, :, 1:, 1:]
