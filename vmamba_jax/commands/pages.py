"""`report`: one page over any evaluated runs."""
import pathlib
import shlex

from vmamba_jax.core.command_line import Words


def report(runs: Words, /, *, out: str = "report.html", title: str = "", label: Words = ()):
    """Write one page that compares evaluated runs: accuracies with intervals, curves, what their configs differ in.

    Args:
        runs: Folders of `vmamba-jax train` and `evaluate`.
        out: HTML file to write.
        title: Heading; default: the runs' labels.
        label: Names of the runs on the page, one each; default: the folders' names.
    """
    from vmamba_jax import reports
    if label and len(label) != len(runs):
        raise ValueError(f"--label: expected {len(runs)} labels, one for each run, got {len(label)}")
    names = list(label) or _labels(runs)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--label: expected different labels, got {repeated[0]!r} twice")
    found = [reports.read_run(folder, name) for folder, name in zip(runs, names, strict=True)]
    command = shlex.join(["vmamba-jax", "report", *runs, "--out", out, *(["--label", *label] if label else [])])
    page = reports.write(out, found, title=title or ", ".join(names), commands=(command,))
    print(f"{reports.tables.text(found)}\nreport: {page}")


def _labels(runs):
    """The folders' names, as many of their parents with them as it takes to tell them apart."""
    parts = [pathlib.Path(run).resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]
