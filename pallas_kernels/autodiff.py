"""Derivatives of the hand-written scans, to any order in reverse mode.

A kernel has a forward and a backward pass; neither needs to be differentiable. Each is wrapped in its own custom_vjp, forward rules call
the wrapped functions and never the kernel, and the derivative of the backward pass is that of the plain scan. The second and later
derivatives run at the plain scan's speed. Forward mode raises JAX's TypeError about custom_vjp functions; `implementation="reference"`
supports it.
"""
import functools

import jax

from pallas_kernels.arguments import previous


@functools.cache
def differentiable(forward, backward, plain, options):
    """Differentiable `scan(args) -> y` from the two passes of a kernel.

    Args:
        forward: (args, options) -> (y, saved); saved is a pytree of arrays for the backward pass.
        backward: (args, saved, dy, options) -> cotangents of args.
        plain: (args, options) -> y by differentiable operations only.
        options: hashable options of all three.
    """
    forward, backward = (jax.jit(functools.partial(f, options=options)) for f in (forward, backward))    # traced once per shape

    @jax.custom_vjp
    def scan(args):
        return run(args)[0]

    @jax.custom_vjp
    def run(args):
        return forward(args)

    @jax.custom_vjp
    def pullback(args, saved, dy):
        return backward(args, saved, dy)

    def run_forward(args):
        y, saved = run(args)
        saved = jax.lax.stop_gradient(saved)
        return (y, saved), (args, saved)

    def scan_forward(args):
        (y, _), residuals = run_forward(args)
        return y, residuals

    def plain_pullback(args, dy):
        return jax.vjp(lambda args: plain(args, options), args)[1](dy)[0]

    def pullback_backward(residuals, cotangent):
        args, saved, dy = residuals
        args_bar, dy_bar = jax.vjp(plain_pullback, args, dy)[1](cotangent)
        return args_bar, jax.tree.map(jax.numpy.zeros_like, saved), dy_bar

    scan.defvjp(scan_forward, lambda residuals, dy: (pullback(*residuals, dy),))
    run.defvjp(run_forward, lambda residuals, cotangents: (pullback(*residuals, cotangents[0]),))
    pullback.defvjp(lambda args, saved, dy: (pullback(args, saved, dy), (args, saved, dy)), pullback_backward)
    return scan


@functools.cache
def differentiable_recurrence(states, options):
    """Differentiable `scan(a, b) -> h` from a kernel `states(a, b, options)` of h_t = a_t h_{t-1} + b_t.

    The derivative is the same recurrence in the opposite direction of time, and so is every higher one.
    """
    @jax.custom_vjp
    def scan(a, b):
        return states(a, b, options)

    def forward(a, b):
        h = scan(a, b)
        return h, (a, h)

    def backward(residuals, dh):
        a, h = residuals
        against = options._replace(reverse=not options.reverse)
        g = differentiable_recurrence(states, against)(previous(a, against.reverse), dh)
        return g * previous(h, options.reverse), g

    scan.defvjp(forward, backward)
    return scan
