"""The command line `vmamba-jax`, also `python -m vmamba_jax`: the catalog, photos, weights, configs, reports, and the programs of `experiments`.

| module | commands |
|---|---|
| `catalog` | `models`, `info` |
| `photos` | `predict` |
| `weights` | `inspect`, `convert`, `export` |
| `configs` | `configs` |
| `pages` | `report` |
| `programs` | `train`, `evaluate`, `sweep`, `study` and the other programs of `experiments` |
"""
ABOUT = ("VMamba in JAX: models, attacks, adversarial training and analyses; also as `python -m vmamba_jax`. A failure is one line on stderr and "
         "exit status 2.")


def main(argv=None):
    """Run one command.

    Args:
        argv: words after the program's name; None: those of this process.

    Returns:
        Exit status: 0, 2 after a failure, or 1 if `predict` could not read some of the photos.
    """
    from vmamba_jax.core import command_line
    return command_line.run(app(), argv)


def app():
    """The `cyclopts.App` of all commands; nothing is imported before, as every program imports `programs` of this package."""
    from vmamba_jax.commands import catalog, configs, pages, photos, programs, weights
    from vmamba_jax.core import command_line
    made = command_line.app("vmamba-jax", ABOUT)
    for group, commands in (
            ("Models and weights", (catalog.models, photos.predict, weights.inspect, weights.convert, weights.export)),
            ("This installation", (configs.configs, pages.report, catalog.info))):
        for command in commands:
            made.command(command, group=group)
    for name in programs.PROGRAMS:
        made.command(programs.command(name), name=name, group="Programs", help_flags=(), version_flags=())
    made.register_install_completion_command()
    return made
