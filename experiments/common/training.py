"""One training run in a folder, resumed if it was stopped. `experiments.train` is its command line."""
import contextlib
import dataclasses
import functools
import json
import time

import jax

import vmamba_jax
from configs import base
from experiments.common import build, classes, cli, limits, phases, results, wandb
from experiments.common.schedule import Lengths
from vmamba_jax import data, evaluation, parallel, reports, training
from vmamba_jax.core.objects import StoreError

LARGE = 5_000_000  # parameters; XLA:CPU compiles the training step of a larger model for minutes, and warns after two
FREE = ("evaluation", "profile", "watchdog", "sharding")  # sections of a config that may change between the calls of one run: no weight depends on them


def run(config, workdir, *, progress=True, command="", make=build.build):
    """Train as the config says, or resume a stopped run; a finished run is not trained again.

    A finished run whose config is given with more epochs is trained longer: from its last checkpoint, by the schedule of all epochs, to their end.

    Args:
        config: ConfigDict such as configs/digits.py returns; missing keys get the neutral values of `configs.base.run`.
        workdir: the run's folder.
        progress: whether to draw the progress bar.
        command: shell line to record, which the pages show; "": none.
        make: function config -> `build.Run`.

    Returns:
        The content of results.json.

    Raises:
        ConfigError: a config that cannot be run, or another one than the folder's.
        RunError: the run failed: a full disk, diverged weights.
        Stopped: SIGTERM or SIGINT stopped the run after it was saved.
    """
    with cli.checking():
        config = base.complete(config)
    limits.check_run(config)
    workdir = cli.folder(workdir, remote=True)
    with _failures(workdir), contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(training.one_run(workdir))
        result = results.load_json(workdir / "results.json")
        _save_config(config, workdir, finished=result is not None)
        longer = result is not None and result["config"]["epochs"] < config.epochs
        if result is None or longer:
            made = make(config)
            classes.save_classes(workdir, build.class_names(made.config, made.train))
            result = _train(made, workdir, progress) | {"command": command}
            results.save_json(workdir / "results.json", result)
        if jax.process_index() == 0 and (longer or not (workdir / "training.html").exists()):
            reports.write_training(workdir / "training.html", reports.read_run(workdir, evaluated=False),
                                   commands=[command] if command else ())
    return result


def _train(run, workdir, progress):
    config, plain, parts = run.config, results.plain(run.config), (*run.earlier, run)
    lengths = [Lengths.of(part.own, part.steps - part.first) for part in parts]
    if config.profile.steps and config.profile.first + config.profile.steps - 1 > run.steps:
        raise cli.ConfigError(f"config.profile.first={config.profile.first}, config.profile.steps={config.profile.steps}: expected to end within the "
                              f"{run.steps} steps of the training")
    if progress:
        cli.report("\n".join([_about(run), *(length.text(part.own) for length, part in zip(lengths, parts, strict=True))]))
    init_key, key = build.keys(config)

    def initial(part):
        place = {} if config.sharding == "replicated" else {"mesh": part.mesh, "sharding": config.sharding}  # a partitioned program compiles more slowly
        state = training.create_state(part.classifier, part.optimizer, init_key, part.train.image_shape, ema_decay=build.ema_decay(config),
                                      variables=part.variables, **place)
        return part.step.begin(state, part.train.image_shape, part.own.batch_size)

    with cli.checking("config.init.checkpoint"):
        shapes = training.sharding.template(jax.eval_shape(lambda: initial(parts[0])), run.mesh, config.sharding)
    with cli.checking():
        training.sharding.check(run.step, shapes.params, run.mesh, config.sharding)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    if progress and parameters > LARGE and jax.devices()[0].platform == "cpu":
        cli.report(f"  compiling  the first step of {parameters:,} parameters may take minutes on a CPU; XLA's message \"Very slow compile?\" means only that")

    since, state = time.perf_counter(), None
    for part in parts:
        if part is not run and _latest(workdir) > part.steps:
            continue  # a later phase resumes from its checkpoint
        begin = functools.partial(initial, part) if state is None else functools.partial(phases.enter, state, part, part.own.batch_size)
        state = _train_part(part, begin, key, workdir, progress, ranked=part is run)

    with training.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        best = {"step": saved.best_step, **saved.metrics("best")}
    return {
        "config": plain, "seed": config.seed, "steps": run.steps, "steps_per_epoch": run.batches.steps_per_epoch, "schedule": dataclasses.asdict(lengths[-1]),
        **({"phases": [{"first": part.first, **dataclasses.asdict(length)} for part, length in zip(parts, lengths, strict=True)]} if run.earlier else {}),
        "best": best, "parameters": parameters, "state_bytes_per_device": training.sharding.bytes_per_device(state),
        "sha256": parallel.fingerprint(state.variables()), "seconds": round(time.perf_counter() - since, 1),
        "validation_attack": build.attack_label(run.attack), **results.provenance(run.train),
    }


def _train_part(run, begin, key, workdir, progress, ranked):
    """The state after one phase, which starts from `begin()` or resumes from its latest checkpoint."""
    config, per_epoch = run.config, run.batches.steps_per_epoch
    plain = results.plain(config)
    return training.train(
        run.step, begin, run.batches, steps=run.steps, key=key, workdir=workdir, first=run.first, mesh=run.mesh, sharding=config.sharding,
        checkpoints=training.Checkpointing(keep_latest=config.checkpoints.keep, best_metric=f"validation/{config.validation.select}", config=plain, rank=ranked),
        validation=training.Validation(_validation(run), every=config.validation.every_epochs * per_epoch),
        monitoring=training.Monitoring(
            log_every=min(per_epoch, config.log_every), on_log=wandb.logger(config.wandb, workdir, plain), progress=progress,
            skips_in_a_row=config.skips.in_a_row, skips_in_all=config.skips.in_all, stop_on_signals=True,
            profile_first=config.profile.first, profile_steps=config.profile.steps, watchdog_factor=config.watchdog.factor,
            watchdog_least=config.watchdog.least))


def _latest(workdir):
    """The latest step saved in a run's folder; 0 if there is none."""
    if not (workdir / "checkpoints").is_dir():
        return 0
    with training.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        return saved.latest_step or 0


def _about(run):
    """One line: the images and classes of a run."""
    names = build.class_names(run.config, run.train)
    return (f"{run.config.model.name} on {run.train.name}: {len(run.train)} training and {len(run.validation)} validation images, {len(names)} classes "
            f"({', '.join(names[:4])}{', ...' * (len(names) > 4)})")


def _validation(run):
    """`(state, step) -> {"validation/accuracy": ..., "validation/robust_accuracy": ...}`; of a dense set those of pixels, and both mIoUs; of a detector
    both average precisions, of boxes and of masks."""
    if build.is_detector(run.config):
        return _detection_validation(run)
    if isinstance(run.train, data.DenseSource):
        return _dense_validation(run)

    def validate(state, step):
        logits_fn = vmamba_jax.logits_fn(run.classifier, state.variables(ema=state.ema is not None))
        result = evaluation.robust_accuracy(logits_fn, run.validation, run.attack, key=jax.random.key(run.config.seed), mesh=run.mesh,
                                            batch_size=run.config.evaluation.batch_size)
        return {f"validation/{name}": result[name] for name in limits.VALIDATION}

    return validate


def _dense_validation(run):
    options = {"mesh": run.mesh, "batch_size": run.config.evaluation.batch_size}

    def validate(state, step):
        logits_fn = vmamba_jax.logits_fn(run.classifier, state.variables(ema=state.ema is not None))
        found = {"": evaluation.dense.segmentation(logits_fn, run.validation, **options),
                 "robust_": evaluation.dense.segmentation(logits_fn, run.validation, attack=run.attack, key=jax.random.key(run.config.seed), **options)}
        return {f"validation/{prefix}{name}": each[key] for prefix, each in found.items() for name, key in (("accuracy", "aAcc"), ("mIoU", "mIoU"))}

    return validate


def _detection_validation(run):
    options = {"mesh": run.mesh, "batch_size": run.config.evaluation.batch_size, "resamples": 0}

    def validate(state, step):
        measure = functools.partial(evaluation.detectors.average_precision, run.classifier, state.variables(ema=state.ema is not None), run.validation, **options)
        found = {"": measure(), "robust_": measure(attack=run.attack, key=jax.random.key(run.config.seed))}
        return {f"validation/{prefix}{name}_{score}": each[kind][score] for prefix, each in found.items() for name, kind in (("box", "bbox"), ("mask", "segm"))
                for score in ("AP", "AP50")}

    return validate


@contextlib.contextmanager
def _failures(workdir):
    """Turn what ends a run into a RunError, and a stop request into a Stopped that says how to resume."""
    try:
        yield
    except training.Stopped as stop:
        raise training.Stopped(f"{stop}; the same command resumes from there") from stop
    except (cli.ConfigError, cli.RunError):
        raise
    except (data.BadImagesError, training.SaveError, training.Locked, training.DamagedCheckpoint, FloatingPointError) as error:
        raise cli.RunError(str(error)) from error
    except StoreError as error:
        raise cli.RunError(str(error)) from error
    except OSError as error:
        raise cli.RunError(f"{workdir}: {error}") from error


def _save_config(config, workdir, finished=False):
    """Write config.json, unless the folder holds a run of another config; the sections of `FREE` may differ, and a finished run may get more epochs."""
    saved, given = results.saved_config(workdir), results.plain(config)
    if saved is not None:
        with cli.checking(workdir / "config.json"):
            saved = results.plain(base.complete(saved))
        differing = [row for row in results.differences(saved, given) if row[0].split(".")[0] not in FREE]
        if finished and [name for name, *_ in differing] == ["epochs"] and saved["epochs"] < given["epochs"]:
            cli.report(f"the finished run of {saved['epochs']} epochs is trained to {given['epochs']}: from its last checkpoint, by the schedule of all epochs")
        elif differing:
            rows = [("field", "was", "is now"), *((name, json.dumps(old), json.dumps(new)) for name, old, new in differing)]
            widths = [max(len(row[i]) for row in rows) for i in range(2)]
            raise cli.ConfigError(f"workdir={workdir}: expected the config that this run started with; choose another --workdir or restore these fields",
                                  [f"{name:{widths[0]}}  {old:{widths[1]}}  {new}" for name, old, new in rows])
    results.save_json(workdir / "config.json", given)
