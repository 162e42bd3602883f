"""Square: random search by square windows, from the logits alone."""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.autoattack import square_proposals
from vmamba_jax.attacks.autoattack.search import Search, first_hits
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record


class Draws(NamedTuple):
    """What one query draws; see `square_moves`. `other` and `flip` serve l2 and l1 only."""
    corner: jax.Array
    other: jax.Array
    signs: jax.Array
    flip: jax.Array


@record("eps")
class Square(Search):
    """Square Attack (Andriushchenko et al. 2020; its l1 form from the reference AutoAttack): a change is kept where it raises the loss.

    Every image draws its own windows from its own key, where the reference lets a batch share their places.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        queries: changes tried per restart >= 1; one more query judges the start.
        norm: "linf", "l2" or "l1".
        restarts: runs from different random starts.
        p_init: share of the pixels in the first windows, in (0, 1].
        rescale: fit the schedule of window sizes, made for 10,000 queries, to `queries`.
        loss: "margin", as in AutoAttack, "cross_entropy", "dlr" or a callable (logits, labels) -> (batch,).
        targeted: labels are targets, and the loss is descended.
        bounds: lowest and highest value of a pixel.
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
    draws = "it is a random search"

    def __post_init__(self):
        super().__post_init__()
        self._set(queries=checks.count("queries", self.queries), restarts=checks.count("restarts", self.restarts),
                  rescale=checks.flag("rescale", self.rescale), p_init=checks.number("p_init", self.p_init, low=0))
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init={self.p_init:g}: expected a share of the pixels in (0, 1]")

    def search(self, logits_fn, images, labels, keys, clean, standing):
        judge = losses.judgement(labels, self.loss, self.targeted)
        evaluate = lambda x: judge(losses.checked(logits_fn(x), x))
        sides = self.sides(images.shape[1:3])

        def attempt(r, left):
            own = attempt_keys(keys, r, self.restarts)
            first = start(self.threat_model, images, fold_in(own, self.queries))
            _, best, _, hit = climb(evaluate, self.threat_model, images, first, sides,
                                    lambda i, side: draw(fold_in(own, i), side, images.shape[1:]), standing=left)
            return best, hit
        return first_hits(attempt, images, standing, self.restarts)

    def sides(self, shape):
        """The window's side at each query."""
        return square_proposals.sides(self.queries, shape, self.norm, self.p_init, self.rescale)


def climb(evaluate, threat, images, start, sides, draw, *, standing=None):
    """Random search from `start` by windows of the given sides (queries,): (queries made (batch,), best images, their values, hits).

    Args:
        evaluate: images -> (value to ascend (batch,), hit (batch,) bool); a hit image is left alone.
        draw: (query i, side) -> `Draws` for all images.
        standing: (batch,) bool, the images worth a search; None: all.
    """
    index, patterns = (None, None) if threat.norm == "linf" else square_proposals.bumps(sides, images.shape[1:3], threat.norm)
    sides = jnp.asarray(sides)
    everyone = images.reshape(len(images), -1)[:, 0] * 0 == 0
    standing = everyone if standing is None else standing & everyone

    def move(i, best):
        draws = draw(i, sides[i])
        if threat.norm == "linf":
            return square_proposals.square(threat, images, best, sides[i], draws.corner, draws.signs)
        pattern = jnp.asarray(patterns, images.dtype)[jnp.asarray(index)[i]]
        return square_proposals.shift(threat, images, best, sides[i], pattern, *draws)

    def query(state):
        i, made, best, best_value, best_hit = state
        x = move(i, best)
        value, hit = evaluate(x)
        running = standing & ~best_hit
        accept = running & ((value > best_value) | hit)
        return (i + 1, made + running, jnp.where(per_image(accept, images), x, best), jnp.where(accept, value, best_value),
                jnp.where(accept, hit, best_hit))

    def unfinished(state):
        return (state[0] < len(sides)) & (standing & ~state[4]).any()

    value, hit = evaluate(start)
    return lax.while_loop(unfinished, query, (0, everyone.astype(jnp.int32), start, value, hit))[1:]


def start(threat, images, keys):
    """The first image: random stripes in linf, random tiles in l2 and l1."""
    h, w, c = images.shape[1:]
    if threat.norm == "linf":
        signs = jax.vmap(lambda key: jax.random.rademacher(key, (w, c), images.dtype))(keys)
        return jnp.clip(square_proposals.stripes(images, jnp.asarray(threat.eps, images.dtype), signs), threat.lower, threat.upper)
    tiles = square_proposals.tiling((h, w))[2]
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (*tiles, c), images.dtype))(fold_in(keys, 0))
    flips = jax.vmap(lambda key: jax.random.bernoulli(key, shape=tuple(tiles)))(fold_in(keys, 1))
    return square_proposals.tiles(threat, images, signs, flips)


def draw(keys, side, shape):
    """One query's draws of every image. Corners stay one short of the last row and column that would fit, as in the reference."""
    h, w, c = shape

    def one(key):
        place, sign, flip = jax.random.split(key, 3)
        corners = jax.random.randint(place, (2, 2), 0, jnp.maximum(jnp.array([h, w]) - side, 1))
        return Draws(corners[0], corners[1], jax.random.rademacher(sign, (c,)), jax.random.bernoulli(flip))
    return jax.vmap(one)(keys)


square = Square
