"""Updates that are not finite are left out: a wrapper around any step, so that one bad batch does not end a run."""
import jax
import jax.numpy as jnp

SKIPPED = "skipped"


def finite(metrics):
    """Bool scalar: whether every metric is finite. `grad_norm` among them tells of every entry of the gradient."""
    values = [jnp.isfinite(value).all() for name, value in metrics.items() if name != SKIPPED]
    return jnp.stack(values).all() if values else jnp.asarray(True)


def skip_nonfinite(step_fn):
    """The step with its update left out where a metric is not finite: the state stays as it was but for its number, which moves on.

    step_fn: `(state, batch, key, *, axis_name=None) -> (state, metrics)`, with metrics alike on all devices, as `objectives` makes them; so all
    devices decide alike. The returned step has the same shape and is as pure; its metrics gain `skipped`, 1.0 or 0.0, and keep the values
    that were not finite. Learning-rate schedules count updates, so they do not move on with a skipped one.
    """
    def step(state, batch, key, *, axis_name=None):
        new, metrics = step_fn(state, batch, key, axis_name=axis_name)
        good = finite(metrics)
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state.replace(step=new.step))
        return kept, {**metrics, SKIPPED: jnp.asarray(~good, jnp.float32)}

    return step
