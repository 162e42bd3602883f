"""Non-finite updates are skipped: a wrapper around any step, so that one bad batch does not end a run."""
import jax
import jax.numpy as jnp

SKIPPED = "skipped"


def finite(metrics):
    """Bool scalar: whether every metric is finite. `grad_norm` among them covers every entry of the gradient."""
    values = [jnp.isfinite(value).all() for name, value in metrics.items() if name != SKIPPED]
    return jnp.stack(values).all() if values else jnp.asarray(True)


def skip_nonfinite(step_fn):
    """The step without its update where a metric is not finite: the state then stays unchanged but for its number of steps.

    Learning-rate schedules count updates, so a skipped step does not advance them.

    Args:
        step_fn: `(state, batch, key, *, axis_name=None) -> (state, metrics)`, with metrics that are the same on all devices, as those of
            `objectives`; so all devices decide alike.

    Returns:
        A pure step of the same signature, which passes further keywords on. Its metrics gain "skipped", 1.0 or 0.0; non-finite values stay in them.
    """
    def step(state, batch, key, *, axis_name=None, **options):
        new, metrics = step_fn(state, batch, key, axis_name=axis_name, **options)
        good = finite(metrics)
        selected = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state.replace(step=new.step))
        return selected, {**metrics, SKIPPED: jnp.asarray(~good, jnp.float32)}

    return step
