"""The training loop: feeds a step, logs, evaluates, checkpoints, and continues exactly where a stopped run left off."""
import collections
import contextlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from .. import data, parallel
from .checkpointing import Checkpoints
from .checks import count, require
from .metrics import Writer
from .progress import Bar, Throughput
from .window import Window

AHEAD = 2  # batches made ready on the device while it works
IN_FLIGHT = 2  # steps dispatched ahead of the device: enough to hide the host, few enough not to pile up batches


def train(step_fn, state, batches, *, steps, key, workdir=None, mesh=None, log_every=50, checkpoint_every=None, eval_every=None,
          evaluate=None, keep_latest=2, keep_best=1, best_metric=None, best_mode="max", config=None, progress=True, on_log=None):
    """Run `step_fn` until `steps` updates are done and return the final state.

    Batch t is `batches[t]` and its key `fold_in(key, t)`, nothing else is random: a run that was stopped and is called again with the same
    arguments resumes from its latest checkpoint and leaves the same losses, weights and metrics.jsonl as one that never stopped.

    step_fn: per-device step `(state, batch, key, axis_name=None) -> (state, metrics)`, see `objectives`. state: to begin with; left intact.
    batches: `batches[t]` is a dict of arrays, this process' share of the batch. An entry "index" stays on the host; "weight"
    (rows,) says how much each example counts. Rows that the devices do not divide are filled up by some of weight 0.
    workdir: gets metrics.jsonl, tensorboard/ and checkpoints/; None: nothing is written. mesh: devices to spread over, see `parallel`.
    log_every: metrics are averaged over so many steps, on the device, and written. checkpoint_every: None saves only at the end.
    evaluate: `(state, step) -> {name: number}`, called every `eval_every` steps and at the end; it must not keep the state, whose buffers
    are reused. best_metric, best_mode: the name in evaluate's dict that ranks the `keep_best` checkpoints kept besides the `keep_latest`
    newest; every evaluation is then also a checkpoint. config: JSON-able, written beside the checkpoints.
    on_log: called with (step, values) for every line written.
    Raises FloatingPointError, naming the step and the last checkpoint, when a metric is no longer finite.
    """
    require(count("steps", steps, 1), count("log_every", log_every, 1), count("checkpoint_every", checkpoint_every, 1, optional=True),
            count("eval_every", eval_every, 1, optional=True),
            (evaluate is not None or eval_every is None, f"eval_every={eval_every!r} needs evaluate"),
            (evaluate is not None or best_metric is None, f"best_metric={best_metric!r} needs evaluate"))
    with contextlib.ExitStack() as stack:
        checkpoints = writer = None
        window = Window()
        state = jax.tree.map(jnp.copy, state)  # the loop gives its buffers away
        if mesh is not None:
            state = parallel.replicate(state, mesh)
        if workdir is not None:
            workdir = pathlib.Path(workdir).absolute()
            checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", keep_latest, keep_best, best_metric, best_mode, config))
            if checkpoints.latest_step is not None:
                state = checkpoints.restore(state)
                window = Window(**checkpoints.extra())
            writer = stack.enter_context(Writer(workdir, step=int(state.step)))
        start = int(state.step)
        place = jax.device_put if mesh is None else lambda batch: parallel.shard_batch(parallel.weigh_padding(batch, mesh.local_mesh.size), mesh)
        step, key = _keyed(step_fn, key)
        run = jax.jit(step, donate_argnums=0) if mesh is None else parallel.map_step(step, mesh, mesh.axis_names[0])
        bar = stack.enter_context(Bar(start, steps, shown=progress))

        def due(done, every):
            return done == steps or (every is not None and done % every == 0)

        def write(done, values):
            if writer is not None:
                writer.write(done, values)
            if on_log is not None:
                on_log(done, values)

        in_flight, throughput = collections.deque(), Throughput()
        feed = data.prefetch((place(_on_device(batches[t])) for t in range(start, steps)), AHEAD)
        for t, batch in enumerate(stack.enter_context(contextlib.closing(feed)), start):
            state, metrics = run(state, batch, key)
            window.add(t + 1, metrics)
            in_flight.append(metrics)
            throughput.add(batch["image"].shape[0], metrics)
            if len(in_flight) > IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            done = t + 1
            bar.advance(done)

            log, evaluates = due(done, log_every), evaluate is not None and due(done, eval_every)
            save = checkpoints is not None and (due(done, checkpoint_every) or (evaluates and best_metric is not None))
            if not (log or evaluates or save):
                continue
            _check_finite(window, checkpoints)
            if log:
                values = window.means()
                write(done, values)
                window = Window()
                bar.show(throughput.rate, values)
                if writer is not None:
                    writer.curve(done, "images_per_second", throughput.rate)
            results = None
            if evaluates:
                results = evaluate(state, done)
                write(done, results)
            if save:
                checkpoints.save(state, metrics=results if best_metric is not None else None, extra=window.to_json())
            throughput.restart()
    return state


def _keyed(step_fn, key):
    """`step_fn` with the key folded in by the step's number, and the run's key as numpy, which any mesh of any number of hosts takes."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    impl = jax.random.key_impl(key) if typed else None

    def step(state, batch, data, *, axis_name=None):
        key = jax.random.wrap_key_data(data, impl=impl) if typed else data
        return step_fn(state, batch, jax.random.fold_in(key, state.step), axis_name=axis_name)

    return step, np.asarray(jax.random.key_data(key) if typed else key)


def _on_device(batch):
    """What of a batch the step is given: an "index" names examples on the host."""
    return {name: array for name, array in batch.items() if name != "index"}


def _check_finite(window, checkpoints):
    bad = window.first_bad()
    if bad is None:
        return
    step, values = bad
    latest = checkpoints and checkpoints.latest_step
    last = f"step {latest} in {checkpoints.directory}" if latest is not None else "none"
    names = ", ".join(f"{name} = {value:g}" for name, value in sorted(values.items()))
    raise FloatingPointError(f"step {step}: a metric is not finite ({names}); last checkpoint: {last}")
