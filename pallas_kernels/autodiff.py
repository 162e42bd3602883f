"""One arrangement of derivatives for every hand-written scan.

A kernel brings its forward and its backward pass; neither need be differentiable. Each is wrapped in its own custom_vjp, forward rules call
the wrapped functions and never the kernel, and the backward's own derivative is that of the plain scan. Reverse mode then works to any order
(the second and later derivatives at the plain scan's speed); forward mode raises JAX's TypeError about custom_vjp functions: ask for
`implementation="reference"` there.
"""
import functools

import jax

from pallas_kernels.arguments import previous


@functools.cache
def differentiable(forward, backward, plain, options):
    """`scan(args) -> y` from a kernel's two passes.

    Args:
        forward: (args, options) -> (y, saved), `saved` being whatever the backward wants to keep.
        backward: (args, saved, dy, options) -> cotangents of args.
        plain: (args, options) -> y by differentiable operations only.
        options: hashable, given to all three.
    """
    forward, backward = (jax.jit(functools.partial(f, options=options)) for f in (forward, backward))    # each shape is traced once

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
    """`scan(a, b) -> h` from a kernel `states(a, b, options)` of h_t = a_t h_{t-1} + b_t.

    Its derivative is the same recurrence the other way round, so it closes under reverse mode.
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
