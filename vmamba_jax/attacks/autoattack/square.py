"""Square: black-box random search by square windows, from logits only."""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.autoattack import square_proposals
from vmamba_jax.attacks.autoattack.search import Search, first_successes
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record


class Draws(NamedTuple):
    """The random numbers of one query; see `square_proposals`."""
    corner: jax.Array   # (batch, 2) int, of the window
    other: jax.Array    # (batch, 2) int, of the second window; l2 and l1 only
    signs: jax.Array    # (batch, channels), +-1
    flip: jax.Array     # (batch,) bool; l2 and l1 only


@record("eps")
class Square(Search):
    """Square Attack: random changes in square windows; a change that increases the loss is accepted.

    Every image has windows from its own random key; in the reference one window position serves the whole batch.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        queries: proposed changes per restart >= 1; one more query evaluates the start.
        norm: "linf", "l2" or "l1".
        restarts: runs from different random starts.
        p_init: fraction of the pixels in the first windows, in (0, 1].
        rescale: scale the schedule of window sizes, designed for 10,000 queries, to `queries`.
        loss: "margin", as in AutoAttack, "cross_entropy", "dlr" or a callable (logits, labels) -> (batch,).
        targeted: labels are targets, and the loss is minimized.
        bounds: lowest and highest value of a pixel.

    Source: Andriushchenko et al. 2020; in l1 the reference AutoAttack.
    """
    eps: float
    queries: int = 5000
    norm: str = "linf"
    _: dataclasses.KW_ONLY
    restarts: int = 1
    p_init: float = 0.8
    rescale: bool = False
    loss: str = "margin"
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "square"
    needs_key = "it is a random search"

    def __post_init__(self):
        super().__post_init__()
        self._set(queries=checks.count("queries", self.queries), restarts=checks.count("restarts", self.restarts),
                  rescale=checks.flag("rescale", self.rescale), p_init=checks.number("p_init", self.p_init, above=0, high=1))

    def search(self, logits_fn, images, labels, keys, clean, active):
        evaluate = losses.objective(logits_fn, labels, self.loss, self.targeted)
        sides = self.sides(images.shape[1:3])

        def attempt(r, left):
            own = attempt_keys(keys, r, self.restarts)
            start = random_start(self.threat_model, images, fold_in(own, self.queries))
            _, best, _, success = random_search(evaluate, self.threat_model, images, start, sides,
                                                lambda i, side: draw(fold_in(own, i), side, images.shape[1:]), active=left)
            return best, success
        return first_successes(attempt, images, active, self.restarts)

    def sides(self, shape):
        """The window's side at each query, (queries,) int, for images of `shape` (H, W)."""
        return square_proposals.sides(self.queries, shape, self.norm, self.p_init, self.rescale)


def random_search(evaluate, threat, images, start, sides, draw, *, active=None):
    """Random search by windows: (queries used (batch,), best images, their values (batch,), success (batch,) bool).

    Args:
        evaluate: images -> (value to maximize (batch,), success (batch,) bool); a misclassified image is not changed any more.
        threat: the threat model.
        images: the clean images, (batch, H, W, C).
        start: the first images, (batch, H, W, C).
        sides: (queries,) int, the window's side at each query.
        draw: (query i, side) -> `Draws` for all images.
        active: (batch,) bool, the images to attack; None: all.
    """
    index, patterns = (None, None) if threat.norm == "linf" else square_proposals.bumps(sides, images.shape[1:3], threat.norm)
    sides = jnp.asarray(sides)
    everyone = images.reshape(len(images), -1)[:, 0] * 0 == 0
    active = everyone if active is None else active & everyone

    def propose(i, best):
        draws = draw(i, sides[i])
        if threat.norm == "linf":
            return square_proposals.square(threat, images, best, sides[i], draws.corner, draws.signs)
        pattern = jnp.asarray(patterns, images.dtype)[jnp.asarray(index)[i]]
        return square_proposals.shift(threat, images, best, sides[i], pattern, *draws)

    def query(state):
        i, used, best, best_value, best_success = state
        x = propose(i, best)
        value, success = evaluate(x)
        running = active & ~best_success
        accept = running & ((value > best_value) | success)
        return (i + 1, used + running, jnp.where(per_image(accept, images), x, best), jnp.where(accept, value, best_value),
                jnp.where(accept, success, best_success))

    def unfinished(state):
        return (state[0] < len(sides)) & (active & ~state[4]).any()

    value, success = evaluate(start)
    return lax.while_loop(unfinished, query, (0, everyone.astype(jnp.int32), start, value, success))[1:]


def random_start(threat, images, keys):
    """The start of the search: random stripes in linf, random tiles in l2 and l1."""
    h, w, c = images.shape[1:]
    if threat.norm == "linf":
        signs = jax.vmap(lambda key: jax.random.rademacher(key, (w, c), images.dtype))(keys)
        return jnp.clip(square_proposals.stripes(images, jnp.asarray(threat.eps, images.dtype), signs), threat.lower, threat.upper)
    tiles = square_proposals.tiling((h, w))[2]
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (*tiles, c), images.dtype))(fold_in(keys, 0))
    flips = jax.vmap(lambda key: jax.random.bernoulli(key, shape=tuple(tiles)))(fold_in(keys, 1))
    return square_proposals.tiles(threat, images, signs, flips)


def draw(keys, side, shape):
    """The `Draws` of one query for every image. As in the reference, corners exclude the last row and column that would fit."""
    h, w, c = shape

    def one(key):
        place, sign, flip = jax.random.split(key, 3)
        corners = jax.random.randint(place, (2, 2), 0, jnp.maximum(jnp.array([h, w]) - side, 1))
        return Draws(corners[0], corners[1], jax.random.rademacher(sign, (c,)), jax.random.bernoulli(flip))
    return jax.vmap(one)(keys)


square = Square
