"""Sound bounds of a function's outputs over a box of inputs, by interval arithmetic through its jaxpr (interval bound propagation).

    low, high = intervals.bounds(fn, x - eps, x + eps)     # no x' of the box has fn(x') outside

In exact arithmetic the function's value lies inside, and so does every float32 evaluation whose operations each have the rounding error that
`arithmetic` allows for: sums in any order, a few units in the last place for a product or a quotient, 32 for exp, log and the like. A product of
matrices in bfloat16 or TF32 has a larger error, so the bound holds for programs run with `jax.default_matmul_precision("highest")`.

Source: Gowal et al. 2018, arXiv 1810.12715; Rump 1999 for products of matrices by center and radius.
"""
from vmamba_jax.core.intervals.arithmetic import Interval
from vmamba_jax.core.intervals.interpreter import Rules, bounds, difference_bounds

__all__ = ["Interval", "Rules", "bounds", "difference_bounds"]
