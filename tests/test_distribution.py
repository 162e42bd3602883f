"""The wheel and the source distribution, built from a copy of the sources and installed into a fresh environment."""
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

from vmamba_jax.version import __version__

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = ("vmamba_jax", "pallas_kernels", "experiments", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "constraints.txt")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"  # one kind in a process, as pip does

pytestmark = pytest.mark.slow


def run(words, where, **options):
    done = subprocess.run([str(word) for word in words], cwd=where, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy(folder):
    """The sources alone, as a clean clone has them."""
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(source distribution, wheel)."""
    folder = tmp_path_factory.mktemp("distribution")
    clone = copy(folder / "clone")
    for kind in ("build_sdist", "build_wheel"):
        run([sys.executable, "-c", BUILD, kind, folder / "dist"], clone)
    return folder / "dist" / f"vmamba_jax-{__version__}.tar.gz", folder / "dist" / f"vmamba_jax-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The Python of an environment with the wheel and nothing else of this project; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run([sys.executable, "-m", "venv", folder], ROOT)
    python = folder / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", built[1]], folder)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")  # the .pth files there, such as an editable installation's, are not read
    return python


def test_wheel_has_every_file(built):
    """Every module and data file, no program at the top level, and what pip needs."""
    names = set(zipfile.ZipFile(built[1]).namelist())
    tracked = [path.relative_to(ROOT).as_posix() for package in ("vmamba_jax", "pallas_kernels") for path in (ROOT / package).rglob("*")
               if path.suffix in (".py", ".html", ".tsv", ".json") and "__pycache__" not in path.parts]
    assert len(tracked) > 200 and set(tracked) <= names
    assert {name.partition("/")[0] for name in names} == {"vmamba_jax", "pallas_kernels", f"vmamba_jax-{__version__}.dist-info"}
    programs = {path.relative_to(ROOT).as_posix() for folder in ("experiments", "configs") for path in (ROOT / folder).rglob("*.py")}
    assert {f"vmamba_jax/programs/{name}" for name in programs} <= names


def test_wheel_from_the_source_distribution_is_the_same(built, tmp_path):
    with tarfile.open(built[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    run([sys.executable, "-c", BUILD, "build_wheel", tmp_path / "dist"], tmp_path / f"vmamba_jax-{__version__}")
    again = zipfile.ZipFile(tmp_path / "dist" / built[1].name)
    assert sorted(again.namelist()) == sorted(zipfile.ZipFile(built[1]).namelist())


def test_installed_wheel_in_an_empty_folder(installed, tmp_path):
    """The library and the command, with a `configs` of the user's own beside them."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise ImportError('the user\\'s own')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = run([installed, "-c", "import pallas_kernels, vmamba_jax; print(vmamba_jax.__file__)"], tmp_path, env=environment).strip()
    assert pathlib.Path(where).is_relative_to(installed.parent.parent)
    command = installed.parent / "vmamba-jax"
    assert f"vmamba_jax         {__version__}" in run([command, "info"], tmp_path, env=environment)
    assert "vmamba_tiny" in run([command, "models", "vmamba*"], tmp_path, env=environment)
    assert '"batch_size": 64' in run([command, "train", "--config", "configs/digits.py:objective=pgd_at", "--print"], tmp_path, env=environment)
