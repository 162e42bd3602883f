"""The training loop: feeds a step, logs, evaluates, checkpoints, and continues exactly where a stopped run left off."""
import collections
import contextlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import data, parallel
from vmamba_jax.core import checks
from vmamba_jax.training.optimization.skipping import skip_nonfinite
from vmamba_jax.training.run import feed as loading
from vmamba_jax.training.run.checkpointing import Checkpoints
from vmamba_jax.training.run.lock import one_run
from vmamba_jax.training.run.metrics import Writer
from vmamba_jax.training.run.progress import Bar
from vmamba_jax.training.run.signals import Stopped, stop_requests
from vmamba_jax.training.run.window import Window

AHEAD = 2  # batches made ready on the device while it works
IN_FLIGHT = 2  # steps dispatched ahead of the device: enough to hide the host, few enough not to pile up batches


def train(step_fn, state, batches, *, steps, key, workdir=None, mesh=None, log_every=50, checkpoint_every=None, eval_every=None,
          evaluate=None, keep_latest=2, keep_best=1, best_metric=None, best_mode="max", config=None, progress=True, on_log=None,
          skips_in_a_row=0, skips_in_all=None, stop_on_signals=False):
    """Run `step_fn` until `steps` updates are done and return the final state.

    Batch t is `batches[t]` and its key `fold_in(key, t)`, nothing else is random: a run that was stopped and is called again with the same
    arguments resumes from its latest checkpoint and leaves the same losses, weights and metrics.jsonl as one that never stopped.

    step_fn: per-device step `(state, batch, key, axis_name=None) -> (state, metrics)`, see `objectives`. state: to begin with; left intact.
    batches: `batches[t]` is a dict of arrays, this process' share of the batch. An entry "index" stays on the host; "weight" (rows,) says how
    much each example counts. Rows that the devices do not divide are filled up by some of weight 0. Or an iterable with `get_state` and
    `set_state`, whose JSON-able state is kept in every checkpoint and given back on resuming.
    workdir: gets metrics.jsonl, timing.jsonl, tensorboard/ and checkpoints/; None: nothing is written. One run at a time may have it.
    mesh: devices to spread over, see `parallel`.
    log_every: metrics are averaged over so many steps, on the device, and written. checkpoint_every: None saves only at the end.
    evaluate: `(state, step) -> {name: number}`, called every `eval_every` steps and at the end; it must not keep the state, whose buffers
    are reused. best_metric, best_mode: the name in evaluate's dict that ranks the `keep_best` checkpoints kept besides the `keep_latest`
    newest; every evaluation is then also a checkpoint. config: JSON-able, written beside the checkpoints.
    on_log: called with (step, values) for every line written.
    skips_in_a_row, skips_in_all: a step with a metric that is not finite makes no update, see `skipping`; the run bears so many, None: any number.
    stop_on_signals: SIGTERM or SIGINT ends the run after the step under way, saved, by raising `Stopped`; a second one ends the process.
    Raises FloatingPointError, naming the step, its examples and the last checkpoint, when more steps were skipped than the limits allow; it is
    looked for where a line or a checkpoint is due. `Locked` where another process has the workdir, `SaveError` where a checkpoint cannot be
    saved, `DamagedCheckpoint` where none can be restored.
    """
    checks.count("steps", steps)
    checks.count("log_every", log_every)
    checks.count("checkpoint_every", checkpoint_every, optional=True)
    checks.count("eval_every", eval_every, optional=True)
    checks.count("skips_in_a_row", skips_in_a_row, 0, optional=True)
    checks.count("skips_in_all", skips_in_all, 0, optional=True)
    checks.require(evaluate is not None or eval_every is None, f"eval_every={eval_every!r}: expected None without evaluate")
    checks.require(evaluate is not None or best_metric is None, f"best_metric={best_metric!r}: expected None without evaluate")
    with contextlib.ExitStack() as stack:
        checkpoints = writer = None
        limits = (skips_in_a_row, skips_in_all)
        window = Window(limits=limits)
        state = jax.tree.map(jnp.copy, state)  # the loop gives its buffers away
        if mesh is not None:
            state = parallel.replicate(state, mesh)
        if workdir is not None:
            workdir = pathlib.Path(workdir).absolute()
            if jax.process_index() == 0:
                stack.enter_context(one_run(workdir))
            checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", keep_latest, keep_best, best_metric, best_mode, config))
            if checkpoints.latest_step is not None:
                state = checkpoints.restore(state)
                extra = checkpoints.extra(int(state.step))
                window = Window(**extra["window"], limits=limits)
                loading.restore(batches, extra["loader"], f"step {int(state.step)} in {checkpoints.directory}")
            writer = stack.enter_context(Writer(workdir, step=int(state.step)))
        start = int(state.step)
        place = jax.device_put if mesh is None else lambda batch: parallel.shard_batch(parallel.weigh_padding(batch, mesh.local_mesh.size), mesh)
        step, key = _keyed(skip_nonfinite(step_fn), key)
        run = jax.jit(step, donate_argnums=0) if mesh is None else parallel.map_step(step, mesh, mesh.axis_names[0])
        bar = stack.enter_context(Bar(start, steps, shown=progress))
        stop_asked = stack.enter_context(stop_requests(stop_on_signals))

        def due(done, every):
            return done == steps or (every is not None and done % every == 0)

        def write(done, values):
            if writer is not None:
                writer.write(done, values)
            if on_log is not None:
                on_log(done, values)

        in_flight, examples = collections.deque(), {}
        feed = data.Meter(data.prefetch(loading.feed(batches, start, steps, place), AHEAD), size=lambda fed: fed.batch["image"].shape[0])
        stack.enter_context(contextlib.closing(feed))
        for done in range(start + 1, steps + 1):
            fed = next(feed)
            state, metrics = run(state, fed.batch, key)
            window.add(done, metrics)
            in_flight.append(metrics)
            examples[done] = fed.index
            if done == start + 1:  # it compiles, which is no part of the pace
                jax.block_until_ready(metrics)
                feed.restart()
            if len(in_flight) > IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            bar.advance(done)

            asked = stop_asked(done)
            log, evaluates = due(done, log_every), evaluate is not None and due(done, eval_every)
            save = checkpoints is not None and (due(done, checkpoint_every) or (evaluates and best_metric is not None) or asked is not None)
            if not (log or evaluates or save or asked):
                continue
            _check_skips(window, limits, examples, checkpoints)
            examples.clear()
            if log:
                values, timing = window.means(), _timing(feed)
                write(done, values)
                window.restart()
                bar.training(values)
                bar.pace(timing)
                if writer is not None and timing:
                    bad = getattr(batches, "bad", None)
                    writer.time(done, timing | ({"bad_images": len(bad)} if bad else {}))
            results = None
            if evaluates:
                results = evaluate(state, done)
                write(done, results)
                bar.validation(results)
            if save:
                loader = loading.gather(fed.state) if loading.has_state(batches) else None
                checkpoints.save(state, metrics=results if best_metric is not None else None, extra={"window": window.to_json(), "loader": loader})
            if asked is not None and done < steps:
                _stop(asked, done, steps, checkpoints)
            feed.restart()
    return state


def _timing(meter):
    """What timing.jsonl holds of the time since the last restart; empty where no step was made in it."""
    return {"seconds": meter.elapsed, "images_per_second": meter.rate, "input_share": meter.wait_fraction} if meter.images else {}


def _keyed(step_fn, key):
    """`step_fn` with the key folded in by the step's number, and the run's key as numpy, which any mesh of any number of hosts takes."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    impl = jax.random.key_impl(key) if typed else None

    def step(state, batch, data, *, axis_name=None):
        key = jax.random.wrap_key_data(data, impl=impl) if typed else data
        return step_fn(state, batch, jax.random.fold_in(key, state.step), axis_name=axis_name)

    return step, np.asarray(jax.random.key_data(key) if typed else key)


def _check_skips(window, limits, examples, checkpoints):
    found = window.beyond_limits()
    if found is None:
        return
    step, values, counts = found
    names = ", ".join(f"{name} = {value:g}" for name, value in sorted(values.items()))
    borne = " and ".join(f"{'any number' if limit is None else limit} {how}" for limit, how in zip(limits, ("in a row", "in all"), strict=True))
    index = examples[step]
    batch = "unknown" if index is None else np.array2string(np.asarray(index), separator=", ", threshold=64, max_line_width=10 ** 6)
    latest = checkpoints and checkpoints.latest_step
    last = f"step {latest} in {checkpoints.directory}" if latest is not None else "none"
    raise FloatingPointError(f"step {step}: a metric is not finite ({names}), {counts['in_a_row']} such steps in a row and {counts['in_all']} in all "
                             f"(borne: {borne}); examples of its batch: {batch}; last checkpoint: {last}")


def _stop(why, done, steps, checkpoints):
    if checkpoints is not None:
        checkpoints.wait()
    raise Stopped(f"stopped by {why} after step {done} of {steps}" + (f", saved in {checkpoints.directory}" if checkpoints else ", nothing saved"))
