"""Programs run as children of one process, since starting Python with JAX takes seconds."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
# Runs each of a JSON list of [program, argument, ...] in a forked child, and prints their exit statuses and output.
DRIVER = """
import json, os, runpy, sys, tempfile, traceback
import absl.app, jax, ml_collections.config_flags, rich.progress, sklearn.datasets, vmamba_jax
for name in vmamba_jax.SUBMODULES: getattr(vmamba_jax, name)  # imported once, before the forks
answers = []
for program, *command in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile("w+") as output:
        if (child := os.fork()) == 0:
            os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
            sys.argv, status = [program, *command], 0
            try:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                status = end.code or 0
            except BaseException:
                status = traceback.print_exc() or 1
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)  # the usual exit takes longer than the command
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        answers.append((status, output.read()))
print(json.dumps(answers))
"""


def run_programs(commands):
    """[(exit status, output), ...] of a list of [program, argument, ...]."""
    done = subprocess.run([sys.executable, "-c", DRIVER, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
