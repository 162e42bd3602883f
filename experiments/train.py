"""Train a classifier, standard or adversarial.

    python -m experiments.train --config configs/digits.py:objective=pgd_at --workdir runs/digits
    python -m experiments.train --config configs/digits.py --workdir runs/short --config.epochs=3

Any field of the config is set by --config.field=value. The same command again resumes a run that was stopped; Ctrl-C or SIGTERM stops one after
the step under way, saved, and a second one at once. The folder gets config.json, metrics.jsonl, timing.jsonl, tensorboard/, checkpoints/ (the
latest, and the best on the validation split) and, when done, results.json and training.html; docs/training.md tells what is in them.
Several hosts: the same command on each, with --coordinator=HOST:PORT --processes=N --process=I, or --cluster where JAX finds them itself.
"""
import contextlib
import json
import pathlib
import time

import jax

import vmamba_jax
from configs import common
from experiments.common import build, cli, wandb
from experiments.common import results as _results
from vmamba_jax import data, evaluation, parallel, reports, training

VALIDATION = ("accuracy", "robust_accuracy")


def run(config, workdir, *, progress=True):
    """Train as the config says, or go on where a stopped run left off. Returns the content of results.json.

    config: a ConfigDict such as configs/digits.py gives. workdir: the run's folder. Raises ConfigError for what cannot be run, RunError for what
    ended a run (a full disk, weights that diverged), Stopped where it was asked to stop.
    """
    workdir = cli.folder(workdir)
    with _failures(workdir), contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(training.one_run(workdir))
        _begin(config, workdir)
        if (results := _results.load_json(workdir / "results.json")) is None:
            results = _train(config, workdir, progress)
            _results.save_json(workdir / "results.json", results)
        if jax.process_index() == 0 and not (workdir / "training.html").exists():
            reports.write_training(workdir / "training.html", reports.read_run(workdir, evaluated=False))
    return results


def _train(config, workdir, progress):
    build.positive(config, "epochs", "batch_size")
    train, validation = build.source(config, "train"), build.source(config, "validation", config.validation.limit)
    mesh = parallel.data_mesh()
    if config.batch_size % mesh.size or config.batch_size > len(train):
        raise cli.ConfigError(f"config.batch_size={config.batch_size}: expected a multiple of the {mesh.size} devices, "
                               f"at most the {len(train)} training images")
    if "mix" in config and config.batch_size // mesh.size % 2:
        raise cli.ConfigError(f"config.batch_size={config.batch_size}: expected an even number of images on each of the {mesh.size} devices, which are "
                               "mixed in pairs")
    batches = build.batches(config, train)
    steps = config.epochs * batches.steps_per_epoch
    optimizer = build.optimizer(config, steps)
    classifier = build.classifier(config, train)
    step = build.objective(config, classifier, optimizer, steps)
    validate = _validation(config, classifier, validation, mesh)
    skips = config.get("skips", common.SKIPS)
    init_key, key = jax.random.split(jax.random.key(config.seed))
    with cli.checking("config.init.checkpoint"):
        state = training.create_state(classifier, optimizer, init_key, train.image_shape, ema_decay=build.ema_decay(config),
                                      variables=build.variables(config, classifier))
    state = step.begin(state, train.image_shape, config.batch_size)

    since = time.perf_counter()
    state = training.train(
        step, state, batches, steps=steps, key=key, workdir=workdir, mesh=mesh, log_every=min(batches.steps_per_epoch, config.log_every),
        eval_every=config.validation.every_epochs * batches.steps_per_epoch, evaluate=validate, progress=progress,
        keep_latest=config.checkpoints.keep, best_metric=f"validation/{config.validation.select}", config=_plain(config),
        skips_in_a_row=skips["in_a_row"], skips_in_all=skips["in_all"], stop_on_signals=True,
        on_log=wandb.logger(config.get("wandb"), workdir, _plain(config)))

    with training.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        best = {"step": saved.best_step, **saved.metrics("best")}
    return {
        "config": _plain(config), "seed": config.seed, "steps": steps, "steps_per_epoch": batches.steps_per_epoch, "best": best,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)), "sha256": parallel.fingerprint(state.variables()),
        "seconds": round(time.perf_counter() - since, 1),
        "validation_attack": build.attack_label(build.attack(config.validation.attack, "config.validation.attack")),
        **_results.environment(train),
    }


@contextlib.contextmanager
def _failures(workdir):
    """Around a run: what ends it becomes a line for the user, and a run asked to stop says how to go on."""
    try:
        yield
    except training.Stopped as stop:
        raise cli.Stopped(f"{stop}; the same command goes on from there") from stop
    except (cli.ConfigError, cli.RunError):
        raise
    except (data.BadImagesError, training.SaveError, training.Locked, training.DamagedCheckpoint, FloatingPointError) as error:
        raise cli.RunError(str(error)) from error
    except OSError as error:
        raise cli.RunError(f"{workdir}: {error}") from error


def _validation(config, classifier, source, mesh):
    """`(state, step) -> {"validation/accuracy": ..., "validation/robust_accuracy": ...}`."""
    attack = build.attack(config.validation.attack, "config.validation.attack")
    build.positive(config.validation, "every_epochs")
    if config.validation.select not in VALIDATION:
        raise cli.ConfigError(f"config.validation.select={config.validation.select!r}: expected one of {', '.join(VALIDATION)}")

    def validate(state, step):
        logits_fn = vmamba_jax.logits_fn(classifier, state.variables(ema=state.ema is not None))
        result = evaluation.robust_accuracy(logits_fn, source, attack, key=jax.random.key(config.seed), mesh=mesh,
                                            batch_size=config.evaluation.batch_size)
        return {f"validation/{name}": result[name] for name in VALIDATION}

    return validate


def _begin(config, workdir):
    """Save the config, once it is known to be the one the folder's training was begun with."""
    saved, given = _results.load_json(workdir / "config.json"), _plain(config)
    if saved is not None and (workdir / "checkpoints").exists():
        differing = [row for row in _differences(saved, given) if not row[0].startswith("evaluation.")]
        if differing:
            rows = [("field", "was", "is now"), *((name, json.dumps(old), json.dumps(new)) for name, old, new in differing)]
            widths = [max(len(row[i]) for row in rows) for i in range(2)]
            raise cli.ConfigError(f"{workdir} was begun with another config: choose another --workdir, or give these fields as they were",
                                   [f"{name:{widths[0]}}  {old:{widths[1]}}  {new}" for name, old, new in rows])
    _results.save_json(workdir / "config.json", given)


def _differences(old, new, prefix=""):
    """(dotted name, old, new) of every field that differs between two nested dicts; None where one has no such field."""
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name, a, b


def _plain(config):
    """The config as JSON gives it back: lists for tuples."""
    return json.loads(config.to_json())


def main(config, workdir):
    results = run(config, workdir)
    best = results["best"]
    cli.tell(f"best on validation, step {best['step']}: clean {100 * best['validation/accuracy']:.1f} %, "
              f"attacked {100 * best['validation/robust_accuracy']:.1f} %\n"
              f"report: {pathlib.Path(workdir) / 'training.html'}\n"
              f"next: python -m experiments.evaluate --workdir {workdir}")


if __name__ == "__main__":
    cli.main(main, doc=__doc__)
