"""Arguments of the scans, the options that run a backend on CPU, and comparisons, for the tests of every backend."""
import jax
import jax.numpy as jnp
import numpy as np

EXACT = ["reference", "associative", "xla"]               # float64 too
KERNELS = ["pallas_tpu", "pallas_gpu"]                    # float32, in interpret mode
BACKENDS = EXACT + KERNELS


def shapes(length, groups=2, state=1, per_group=3, batch=2):
    """Name -> shape of the arguments of `selective_scan`."""
    channels = groups * per_group
    return dict(u=(batch, length, channels), delta=(batch, length, channels), A=(channels, state), B=(batch, length, groups, state),
                C=(batch, length, groups, state), D=(channels,), delta_bias=(channels,))


def cross_shapes(height, width, channels, rank, state=1, batch=1):
    """Name -> shape of the arguments of `cross_selective_scan`."""
    return dict(u=(batch, height, width, channels), steps=(batch, height, width, 4, rank), dt_weight=(4, channels, rank),
                A=(4, channels, state), B=(batch, height, width, 4, state), C=(batch, height, width, 4, state), D=(4, channels), delta_bias=(4, channels))


def draw(*sizes, dtype=jnp.float32, seed=0, shapes=shapes, **more):
    """Random arguments of a scan with the sizes of `shapes`, A negative."""
    rng = np.random.default_rng(seed)
    args = {name: rng.standard_normal(shape) for name, shape in shapes(*sizes, **more).items()}
    args["A"] = -np.exp(args["A"])
    if "dt_weight" in args:
        args["dt_weight"] = 0.3 * args["dt_weight"]
    return {name: jnp.asarray(x, dtype) for name, x in args.items()}


def draw_cross(*sizes, **more):
    """`draw` for `cross_selective_scan`."""
    return draw(*sizes, shapes=cross_shapes, **more)


def by(backend):
    """Keyword arguments that run a backend on CPU."""
    return dict(implementation=backend, interpret=backend in KERNELS)


def value_and_gradients(scan, args, cotangent, **options):
    """(y, cotangents of the arguments) of a scan, compiled as one."""
    def run(args, cotangent):
        y, pullback = jax.vjp(lambda args: scan(**args, **options), args)
        return y, pullback(cotangent)[0]
    return jax.jit(run)(args, cotangent)


def relative(x, y):
    """Maximum of |x - y| over maximum of |y|, in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)
