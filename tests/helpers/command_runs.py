"""The package's commands run inside the tests' own process."""


def run_command(main, capsys, *args):
    """(status, stdout, stderr) of a program, given its `main`."""
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as stop:
        status = stop.code
    return (status, *capsys.readouterr())
