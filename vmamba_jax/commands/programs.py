"""The programs of `experiments`, and where they and `configs` lie: at the root of a clone, or in this package when it is installed from a wheel."""
import os
import pathlib
import runpy
import sys
from typing import Annotated

PROGRAMS = {
    "train": "Train a classifier, standard or adversarial.",
    "evaluate": "Evaluate a trained run or released weights, clean, attacked and corrupted.",
    "sweep": "Train and evaluate many runs of one config, over seeds.",
    "study": "Put several models under every probe of robustness.",
    "analyze": "Receptive fields, attention of the scan, hidden states.",
    "plan": "What a training run will cost on a TPU slice or on GPUs: memory, time, chips.",
    "ads": "State space models with and without Adaptive Scaling.",
    "mender": "Locate and repair flawed hidden states.",
    "dense": "Segmentation and detection of rendered shapes, attacked and corrupted.",
    "adapt": "Test-time adaptation, and attackers who know it.",
    "certify": "Certified accuracy by smoothing and by interval bounds.",
    "attack_quality": "Attacks at equal numbers of passes.",
    "benchmark": "Times and memory of scans, models, attacks and training.",
    "quickstart": "Train and evaluate small VMambas on digits in minutes."}
LAUNCHED = "VMAMBA_JAX_LAUNCHED"  # environment variable of programs that `vmamba-jax` started, and of their children
PACKAGE = pathlib.Path(__file__).parent.parent


def folder():
    """The folder that holds `experiments` and `configs`; a FileNotFoundError names where they were expected."""
    places = (PACKAGE / "programs", PACKAGE.parent)  # built by setup.py; a clone
    for place in places:
        if (place / "experiments" / "train.py").is_file() and (place / "configs" / "base.py").is_file():
            return place
    raise FileNotFoundError(f"experiments and configs: expected in {' or '.join(map(str, places))}")


def importable():
    """Let this process and its children import `experiments` and `configs` of this package, before any others of these names. Returns their folder."""
    place = str(folder())
    if place not in sys.path[:1]:
        sys.path.insert(0, place)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if place != str(PACKAGE.parent) and place not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([place, *filter(None, paths)])
    return pathlib.Path(place)


def run(name, words):
    """Run a program of `experiments` as if it were started with these words."""
    importable()
    os.environ[LAUNCHED] = "1"
    sys.argv = [f"vmamba-jax {name}", *words]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


def command(name):
    """The function of the command that runs program `name`; all its words, --help too, go to the program."""
    from cyclopts import Parameter

    def made(*words: Annotated[str, Parameter(allow_leading_hyphen=True, help="See `--help` of the program.")]):
        run(name, words)
    made.__doc__ = PROGRAMS[name]
    return made
