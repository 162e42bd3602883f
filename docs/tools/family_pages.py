"""The pages of the model families, from the catalog: paper, options, names with parameters and multiply-adds, released weights, and agreement."""
import dataclasses
import fnmatch
import pathlib

from pages import save, table

from vmamba_jax import models
from vmamba_jax.commands.catalog import catalog_rows


@dataclasses.dataclass(frozen=True)
class Family:
    """A page: file name, title, arXiv identifier of the paper, dotted name of the class, patterns of its names in the catalog, the test file that
    compares small models of it, what that file compares them with, and what it requires.
    """
    file: str
    title: str
    paper: str
    cls: str
    names: tuple
    test: str
    agreement: str = "logits within 1e-9 in float64, and the gradient of the images within 1e-9 of its largest value; within 2e-5 in float32"
    against: str = "arrays that the original program computed from the same weights and images"
    guide: str = "../models"


FAMILIES = (
    Family("vmamba", "VMamba", "2401.10166", "VMamba", ("vmamba_*",), "test_vmamba_parity.py", "logits and gradient of the images within 1e-9 in float64, within 2e-5 in float32"),
    Family("vim", "Vim (Vision Mamba)", "2401.09417", "Vim", ("vim_*",), "test_vim.py",
           "logits, hidden states and gradients within 1e-9 of the largest value of each array in float64, within 2e-5 in float32"),
    Family("vit", "ViT, DeiT and DINOv2", "2010.11929", "ViT", ("vit_*", "deit_*", "dinov2_*"), "test_vit.py"),
    Family("swin", "Swin Transformer", "2103.14030", "Swin", ("swin_*",), "test_swin.py"),
    Family("convnext", "ConvNeXt", "2201.03545", "ConvNeXt", ("convnext_*",), "test_convnext.py"),
    Family("mambaout", "MambaOut", "2405.07992", "MambaOut", ("mambaout_*",), "test_mambaout.py"),
    Family("spatial_mamba", "Spatial-Mamba", "2410.15091", "SpatialMamba", ("spatialmamba_*",), "test_scan_hybrids.py",
           "logits within 1e-9 in float64", "a plain statement of the original program's equations in NumPy"),
    Family("mambavision", "MambaVision", "2407.08083", "MambaVision", ("mambavision_*",), "test_scan_hybrids.py",
           "logits within 1e-9 in float64", "a plain statement of the original program's equations in NumPy"),
    Family("resnet", "ResNet", "1512.03385", "ResNet", ("resnet*",), "test_resnet.py"),
    Family("efficientnet", "EfficientNet-Lite", "1905.11946", "EfficientNetLite", ("efficientnet_*",), "test_efficientnet.py",
           "logits and gradient of the images within 1e-9 in float64, with the released weights"),
    Family("sequence", "Sequence classifiers: S4, DSS, S5, Mega, Mamba, Transformer", "2406.05532", "SequenceClassifier",
           tuple(f"{name}_*" for name in ("s4", "dss", "s5", "mega", "mamba", "transformer")), "test_sequence_parity.py",
           "every array within 1e-9 of its largest value, or of 1, in float64; within 2e-5 in float32", guide="../sequence"),
)


def write(folder):
    """Write one page for each family and their index; unchanged files are left alone."""
    pages = {f"{family.file}.rst": page(family) for family in FAMILIES}
    names = [family.file for family in FAMILIES]
    pages["index.rst"] = "\n".join(["Model families", "==============", "", "One page for each family of the catalog. :doc:`../models` has the parts as layers, the cost and "
                                    "all names in one table; :doc:`../dense` has segmenters and detectors.", "", ".. toctree::", "", *(f"   {name}" for name in names), ""])
    save(pathlib.Path(folder), pages)


def page(family):
    """The text of a family's page."""
    rows = [row for name in members(family) for row in catalog_rows(name)]
    titled = [family.title, "=" * len(family.title)]
    weights = table(("name", "weights' tag", "top-1", "measured by", "preprocessing", "file"),
                    [(name, tag, top1, source, preprocessing, f"`{file} <{url}>`__" if file and url.startswith("http") else file)
                     for name, _, _, top1, source, tag, preprocessing, file, url in rows if top1])
    return "\n".join([
        *titled, "", f"Paper: `arXiv {family.paper} <https://arxiv.org/abs/{family.paper}>`__. Class and options: "
        f":py:class:`vmamba_jax.models.{family.cls}`. More: :doc:`{family.guide}`.", "",
        "Names", "-----", "", *table(("name", "parameters", "multiply-adds"), [row[:3] for row in rows if row[1]]), "",
        "Parameters of image models are counted with 1000 classes, multiply-adds of one image of the evaluation's size.", "",
        *(["Released weights", "----------------", "", *weights, "",
           "Top-1 is the published ImageNet-1k accuracy in %, with the preprocessing of that measurement; nothing was retrained or measured again here.", ""]
          if any(row[3] for row in rows) else ["No weights were released in a format that is read here.", ""]),
        "Agreement with the original program", "-----------------------------------", "",
        f"``tests/models/{family.test}`` compares small models with {family.against}. It requires: {family.agreement}.", ""])



def members(family):
    """Names of the catalog that belong to a family, in the catalog's order."""
    return [name for name in models.list_models() if any(fnmatch.fnmatch(name, pattern) for pattern in family.names)]

