"""The training loop: runs a step over batches, logs, validates and checkpoints, and resumes a stopped run bit-exactly."""
import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import data, parallel
from vmamba_jax.core import checks, deprecation
from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.training import sharding as layouts
from vmamba_jax.training.optimization.skipping import skip_nonfinite
from vmamba_jax.training.run import feed as loading
from vmamba_jax.training.run.checkpointing import Checkpoints
from vmamba_jax.training.run.clock import Clock
from vmamba_jax.training.run.lock import one_run
from vmamba_jax.training.run.metrics import Writer
from vmamba_jax.training.run.profiling import Profiler
from vmamba_jax.training.run.progress import Bar
from vmamba_jax.training.run.signals import Stopped, stop_requests
from vmamba_jax.training.run.watchdog import Watchdog
from vmamba_jax.training.run.window import Window

AHEAD = 2  # batches prefetched to the device
IN_FLIGHT = 2  # steps dispatched ahead of the device: enough to hide the host, few enough not to pile up batches


@dataclasses.dataclass(frozen=True)
class Checkpointing:
    """When a run saves checkpoints, and which ones it keeps.

    Attributes:
        every: steps between checkpoints; None: only at the end of the run.
        keep_latest: number of newest checkpoints kept, >= 1.
        keep_best: number of best checkpoints by `best_metric` kept besides, >= 0.
        best_metric: name in the validation's results that ranks the checkpoints; every validation then also saves one. None: no ranking.
        best_mode: "max" or "min".
        rank: False: validations save checkpoints that `best_metric` does not rank, as in all phases of a run but the last.
        config: JSON-able description of the run, written beside the checkpoints; None: none.
    """
    every: int | None = None
    keep_latest: int = 2
    keep_best: int = 1
    best_metric: str | None = None
    best_mode: str = "max"
    config: Any = None
    rank: bool = True

    def __post_init__(self):
        checks.count("every", self.every, 1, optional=True)
        checks.count("keep_latest", self.keep_latest, 1)
        checks.count("keep_best", self.keep_best, 0)
        checks.choice("best_mode", self.best_mode, ("max", "min"))


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a run measures besides its training metrics.

    Attributes:
        evaluate: `(state, step) -> {name: number}`. It must not keep the state: the next step donates its buffers.
        every: steps between validations; None: only at the end of the run.
    """
    evaluate: Callable
    every: int | None = None

    def __post_init__(self):
        if not callable(self.evaluate):
            raise TypeError(f"evaluate={self.evaluate!r}: expected a function (state, step) -> {{name: number}}")
        checks.count("every", self.every, 1, optional=True)


@dataclasses.dataclass(frozen=True)
class Monitoring:
    """What a run reports, and what ends it early.

    Attributes:
        log_every: steps per line of metrics.jsonl; the metrics are averaged over them, on the device.
        on_log: called with (step, values) for every line; None: not called.
        progress: show a progress bar.
        skips_in_a_row, skips_in_all: maximum number of skipped steps, in a row and in total, before the run fails; None: no limit. A step
            with a non-finite metric is skipped: it makes no update, see `skip_nonfinite`.
        stop_on_signals: on SIGTERM or SIGINT the run finishes the current step, saves and raises `Stopped`; a second signal ends the
            process.
        profile_first, profile_steps: first step and number of steps of a profiler trace in `<workdir>/profile`; 0 steps: no trace.
        watchdog_factor: a step, validation or checkpoint that takes this many times its median is reported while it lasts, with the processes
            that are late; 0: never, see `Watchdog`.
        watchdog_least: seconds before which nothing is reported.
    """
    log_every: int = 50
    on_log: Callable | None = None
    progress: bool = True
    skips_in_a_row: int | None = 0
    skips_in_all: int | None = None
    stop_on_signals: bool = False
    profile_first: int = 1
    profile_steps: int = 0
    watchdog_factor: float = 0.0
    watchdog_least: float = 60.0

    def __post_init__(self):
        checks.count("log_every", self.log_every, 1)
        checks.count("profile_first", self.profile_first, 1)
        checks.count("profile_steps", self.profile_steps, 0)
        checks.number("watchdog_factor", self.watchdog_factor, low=0)
        checks.number("watchdog_least", self.watchdog_least, above=0)
        checks.count("skips_in_a_row", self.skips_in_a_row, 0, optional=True)
        checks.count("skips_in_all", self.skips_in_all, 0, optional=True)


_OLD_KEYWORDS = {  # keyword of earlier releases: the field that replaces it
    "checkpoints": (Checkpointing, {"checkpoint_every": "every", **{name: name for name in (
        "keep_latest", "keep_best", "best_metric", "best_mode", "config")}}),
    "validation": (Validation, {"evaluate": "evaluate", "eval_every": "every"}),
    "monitoring": (Monitoring, {field.name: field.name for field in dataclasses.fields(Monitoring)}),
}


def _accept_old_keywords(function):
    """`train` with the keywords of earlier releases, which warn; they are now fields of `Checkpointing`, `Validation` and `Monitoring`."""
    @functools.wraps(function)
    def accepting(*args, **keywords):
        for name, (group, fields) in _OLD_KEYWORDS.items():
            given = {old: keywords.pop(old) for old in fields if old in keywords}
            if given:
                old_call = ", ".join(f"{old}=..." for old in given)
                deprecation.warn(f"train({old_call})", f"train({name}={group.__name__}(...))")
                new = {fields[old]: value for old, value in given.items()}
                keywords[name] = dataclasses.replace(keywords[name], **new) if name in keywords else group(**new)
        return function(*args, **keywords)

    return accepting


@_accept_old_keywords
def train(step_fn, state, batches, *, steps, key, workdir=None, first=0, mesh=None, sharding="replicated", checkpoints=Checkpointing(),
          validation=None, monitoring=Monitoring()):
    """Runs `step_fn` until `steps` steps are done and returns the final state.

    Batch t is `batches[t]` and its key `fold_in(key, t)`; nothing else is random. A stopped run that is called again with the same
    arguments resumes from its latest checkpoint and ends with the same losses, weights and metrics.jsonl as an uninterrupted one.

    Args:
        step_fn: per-device step `(state, batch, key, axis_name=None) -> (state, metrics)`, pure and hashable, see `objectives`.
        state: initial `TrainState`; copied, as the step donates its buffers. Or a function without arguments that returns it, which is not copied, and
            is not called where a checkpoint is restored.
        batches: `batches[t]` is a dict of arrays, this process' slice of the batch. An entry "index" stays on the host; "weight" (rows,) is
            how much each example counts. A batch that the devices do not divide is padded with rows of weight 0. Or an iterable with
            `get_state` and `set_state`, whose JSON-able state every checkpoint saves and a resumed run restores.
        steps: total number of steps, those of earlier calls included.
        key: random key of the run.
        workdir: folder of metrics.jsonl, timing.jsonl, tensorboard/ and checkpoints/, for one run at a time; a path, or a URL of a folder in a
            bucket, gs:// or s3://. None: nothing is written.
        first: step of `state`, at which this part of a longer run begins, with another step function or other batches than the part before; intervals of
            checkpoints and validations count from it, and an earlier checkpoint is not restored.
        mesh: devices to shard the batch over, see `parallel`; None: the default device.
        sharding: of the state, "replicated" or "fsdp", see `training.sharding`; "fsdp" needs a mesh, a `Step` of `objectives`, and an optimizer that updates
            every entry by itself. Checkpoints do not depend on it.
        checkpoints: `Checkpointing`.
        validation: `Validation`; None: no validation.
        monitoring: `Monitoring`.

    Raises:
        FloatingPointError: more steps were skipped than the limits allow, checked at every log line and checkpoint; it names the step, its
            examples and the last checkpoint.
        Locked: another process uses the workdir.
        SaveError: a checkpoint cannot be saved.
        DamagedCheckpoint: no checkpoint can be restored.
        Stopped: a signal stopped the run.
    """
    checks.count("steps", steps, 1)
    if validation is None and checkpoints.best_metric is not None:
        raise ValueError(f"best_metric={checkpoints.best_metric!r} with validation=None: expected a Validation")
    with contextlib.ExitStack() as stack:
        folder = writer = None
        limits = (monitoring.skips_in_a_row, monitoring.skips_in_all)
        window = Window(limits=limits)
        make, saved = state if callable(state) else functools.partial(jax.tree.map, jnp.copy, state), None  # the step donates its buffers
        template = make() if mesh is None else layouts.template(jax.eval_shape(make), mesh, sharding)
        layouts.check(step_fn, template.params, mesh, sharding)
        if workdir is not None:
            workdir = run_folder(workdir).absolute()
            if jax.process_index() == 0:
                stack.enter_context(one_run(workdir))
            folder = stack.enter_context(Checkpoints(workdir / "checkpoints", checkpoints.keep_latest, checkpoints.keep_best,
                                                     checkpoints.best_metric if checkpoints.rank else None, checkpoints.best_mode, checkpoints.config))
            if (latest := folder.latest_step) is not None and latest > first:
                saved = folder.restore(template)
                extra = folder.extra(int(saved.step))
                window = Window(**extra["window"], limits=limits)
                loading.restore(batches, extra["loader"], f"step {int(saved.step)} in {folder.directory}")
            elif latest is not None:
                window = Window(**folder.extra(latest)["window"], limits=limits)
        state = saved or (template if mesh is None else layouts.place(make(), mesh, sharding))
        start = int(state.step)
        if first > start:
            raise ValueError(f"first={first} with a state of step {start}: expected the step of the state at which this part begins")
        if workdir is not None:
            writer = stack.enter_context(Writer(workdir, step=start))
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        run = _program(step_fn, mesh, jax.random.key_impl(key) if typed else None, sharding)
        key = np.asarray(jax.random.key_data(key) if typed else key)  # numpy, which a mesh of several hosts accepts
        bar = stack.enter_context(Bar(start, steps, shown=monitoring.progress))
        stop_requested = stack.enter_context(stop_requests(monitoring.stop_on_signals))
        clock = Clock()
        profiler = stack.enter_context(Profiler(workdir, monitoring.profile_first, monitoring.profile_steps))
        stack.enter_context(Watchdog(clock, monitoring.watchdog_factor, monitoring.watchdog_least))
        stack.callback(clock.end)

        def place(batch):
            return jax.device_put(batch) if mesh is None else parallel.shard_batch(parallel.weigh_padding(batch, mesh.local_mesh.size), mesh)

        def due(done, every):
            return done == steps or (every is not None and (done - first) % every == 0)

        def write(done, values):
            if writer is not None:
                writer.write(done, values)
            if monitoring.on_log is not None:
                monitoring.on_log(done, values)

        in_flight, examples = collections.deque(), {}
        fed_batches = loading.feed(batches, start, steps, place, getattr(step_fn, "check_batch", None))
        feed = data.Meter(data.prefetch(fed_batches, AHEAD), size=lambda fed: fed.batch["image"].shape[0])
        stack.enter_context(contextlib.closing(feed))
        for done in range(start + 1, steps + 1):
            clock.enter("data", done)
            fed = next(feed)
            clock.enter("step" if done > start + 1 else "compile", done)
            with profiler.step(done, state.step):
                state, metrics = run(state, fed.batch, key)
            window.add(done, metrics)
            in_flight.append(metrics)
            examples[done] = fed.index
            if done == start + 1:  # this step compiles, which must not count in the rate
                jax.block_until_ready(metrics)
                feed.restart()
            if len(in_flight) > IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            bar.done(done)
            if profiler.end(done, metrics):
                bar.note(f"profile of steps {monitoring.profile_first} to {done}: {profiler.command}")

            stop = stop_requested(done)
            log, validate = due(done, monitoring.log_every), validation is not None and due(done, validation.every)
            judged = validate and checkpoints.best_metric is not None
            save = folder is not None and (due(done, checkpoints.every) or judged or stop is not None)
            if not (log or validate or save or stop):
                continue
            _check_skips(window, limits, examples, folder)
            examples.clear()
            timing = {}
            if log:
                values, timing = window.means(), _timing(feed)
                write(done, values)
                window.restart()
                bar.training(values)
                bar.rate(timing)
            results = None
            if validate:
                clock.enter("validation", done)
                results = validation.evaluate(state, done)
                write(done, results)
                bar.validation(results)
            if save:
                clock.enter("checkpoint", done)
                if writer is not None:
                    writer.flush()
                loader = loading.gather(fed.state) if loading.has_state(batches) else None
                folder.save(state, metrics=results if judged and checkpoints.rank else None, extra={"window": window.to_json(), "loader": loader})
            if writer is not None and timing:  # after validation and checkpoint, whose seconds belong to these steps
                bad = getattr(batches, "bad", None)
                writer.time(done, timing | clock.take() | ({"bad_images": len(bad)} if bad else {}))
            if stop is not None and done < steps:
                _stop(stop, done, steps, folder)
            feed.restart()
    return state


def _timing(meter):
    """Values of a line of timing.jsonl: seconds, rate and input fraction since the last restart; empty if no step was made since."""
    return {"seconds": meter.elapsed, "images_per_second": meter.rate, "input_share": meter.wait_fraction} if meter.images else {}


@functools.lru_cache(maxsize=4)
def _program(step_fn, mesh, impl, sharding):
    """The compiled step: non-finite updates are skipped, and the step's number is folded into the run's key.

    Cached, so that another call of `train` with the same step in one process does not trace it again.

    Args:
        step_fn: as of `train`.
        mesh: as of `train`.
        impl: the implementation of a typed key; None: a legacy uint32 key.
        sharding: as of `train`.
    """
    skipping = skip_nonfinite(step_fn)

    def step(state, batch, data, **options):
        key = data if impl is None else jax.random.wrap_key_data(data, impl=impl)
        return skipping(state, batch, jax.random.fold_in(key, state.step), **options)

    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    return parallel.map_step(step, mesh, mesh.axis_names[0], layout=layouts.layout(mesh, sharding))


def _check_skips(window, limits, examples, folder):
    found = window.beyond_limits()
    if found is None:
        return
    step, values, counts = found
    names = ", ".join(f"{name} = {value:g}" for name, value in sorted(values.items()))
    limit = ", ".join(f"{'none' if limit is None else limit} {how}" for limit, how in zip(limits, ("in a row", "in total"), strict=True))
    index = examples[step]
    batch = "unknown" if index is None else np.array2string(np.asarray(index), separator=", ", threshold=64, max_line_width=10 ** 6)
    latest = folder and folder.latest_step
    last = f"step {latest} in {folder.directory}" if latest is not None else "none"
    raise FloatingPointError(f"step {step}: a metric is not finite ({names}), {counts['in_a_row']} such steps in a row and "
                             f"{counts['in_all']} in total (limit: {limit}); examples of its batch: {batch}; last checkpoint: {last}")


def _stop(signal, done, steps, folder):
    if folder is not None:
        folder.wait()
    raise Stopped(f"stopped by {signal} after step {done} of {steps}" + (f", saved in {folder.directory}" if folder else ", nothing saved"))
