"""A study: a sweep whose finished runs are measured further, and whose folder gets a page of its own.

A program of one has `run(config, workdir, *, progress, command)` by `run` below, and `main` by `main`.
"""
import pathlib
import shlex
import time

from absl import flags

from experiments import sweep
from experiments.common import build, cli, results
from experiments.common import evaluation as common
from experiments.sweeps import plan, records
from experiments.sweeps import workers as processes
from vmamba_jax import parallel


def flag_names():
    """Define the flags of a study's program. Returns their names."""
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page", *processes.flag_names())


def run(config, workdir, *, name, evaluate, write, progress=True, command="", **options):
    """Run every unfinished run of a sweep, measure what an earlier version has not, and write the page.

    Args:
        config, workdir, progress: as of `sweep.run`.
        name: the program's, as "ads" of experiments.ads.
        evaluate: `(config, workdir, *, progress)` of one run; does nothing for a run that it has measured.
        write: `(workdir, commands=)` writes the page.
        command: the shell line that was given.
        options: further arguments of `sweep.run`.

    Returns:
        {run's name: its record}, as `sweep.run`; its errors too.
    """
    workdir = cli.folder(workdir)
    earlier = [each for each in plan.expand(config) if records.read(workdir / each.name).get("status") == "done"]
    found = sweep.run(config, workdir, progress=progress, commands=(command,) if command else (), evaluate=evaluate, **options)
    for each in earlier:  # perhaps measured by an earlier version or with other settings; the runs of this call are measured
        if found[each.name].get("status") == "done":
            with sweep.waiting(workdir / each.name):  # several processes measure it once
                evaluate(each.config, workdir / each.name, progress=progress)
    write(workdir, commands=(command or _command(name, workdir),))
    return found


def measured(config, folder, file, measure, study, *, progress=True):
    """Evaluate a run's last checkpoint as `experiments.evaluate` does, and write what `measure` returns to a JSON file of the run's folder.

    A file of the same weights, images and settings is kept.

    Args:
        config, folder, progress: of the run.
        file: the file's name.
        measure: `(classifier, variables, source of the training split)` gives the file's content, a JSON-able dict; "identity" and "seconds" are added.
        study: the config's section of the study, plain, which the identity contains.
    """
    folder = pathlib.Path(folder)
    common.run(config, folder, "latest", progress=progress)
    classifier, variables, train = build.trained(config, folder)
    identity = results.identity(weights=parallel.fingerprint(variables), data=train.fingerprint, settings={
        "model": build.description(classifier), "study": study})
    if results.saved(folder / file, identity, cli.report) is not None:
        return
    since = time.perf_counter()
    content = {"identity": identity} | measure(classifier, variables, train)
    results.save_json(folder / file, content | {"seconds": round(time.perf_counter() - since, 1)})


def main(config, workdir, *, page, workers, name, file, run, write, text):
    """The main function of a study's program.

    Args:
        config, workdir, page, workers: of the command line.
        name: as of `run`; the page is <name>.html.
        file: of the study's configs, for the command on a page that is drawn again.
        run: `(config, workdir, *, command)`.
        write: as of `run`.
        text: `(workdir)` gives the tables for a terminal.
    """
    if page:
        with cli.checking("--page"):
            write(workdir, commands=(_command(name, workdir, f"--config {file} "),))
        return
    if (wanted := processes.count(workers)) > 1:
        found = processes.run(config, workdir, wanted, f"experiments.{name}", sweep.line)
    else:
        sweep.keep_programs(workdir)
        found = run(config, workdir, command=cli.command(f"experiments.{name}"))
    cli.report(f"{text(workdir)}\n\npage: {workdir}/{name}.html")
    sweep.end(found)


def _command(name, workdir, config=""):
    return f"{cli.invocation(name)} {config}--workdir {shlex.quote(str(workdir))}"
