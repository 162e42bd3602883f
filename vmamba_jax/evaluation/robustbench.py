"""A result of AutoAttack in the form of RobustBench's `model_info` files, checked against its protocol."""
import fractions
import json
import numbers
import pathlib

from vmamba_jax import attacks
from vmamba_jax.core import checks, files
from vmamba_jax.core.results import Result

# data set -> (images of the evaluation, {norm: (its name there, radius)})
PROTOCOL = {
    "cifar10": (10_000, {"linf": ("Linf", 8 / 255), "l2": ("L2", 0.5)}),
    "cifar100": (10_000, {"linf": ("Linf", 8 / 255)}),
    "imagenet": (5_000, {"linf": ("Linf", 4 / 255)}),
}


def robustbench_record(result, *, dataset, architecture, name, authors, link, venue, additional_data=False, number_forward_passes=1, reported=None,
                       external=None, footnote=None, unreliable=False, path=None) -> Result:
    """The entry of a leaderboard of RobustBench for a result, as a dict with its fields in their order; accuracies are texts, in percent.

    Args:
        result: of `robust_accuracy` under "autoattack", version "standard", at the benchmark's radius and on all its images.
        dataset: "cifar10", "cifar100" or "imagenet".
        architecture: such as "VMamba-T".
        name: title of the paper.
        authors: one line.
        link: address of the paper, https.
        venue: such as "NeurIPS 2024" or "arXiv, May 2024".
        additional_data: whether the model was trained with images outside the data set's training split.
        number_forward_passes: of one prediction.
        reported: robust accuracy in percent that the authors report; None: this result's.
        external: lower robust accuracy in percent that others measured, or None.
        footnote: a text, or None.
        unreliable: whether the evaluation is known to overestimate the robustness.
        path: file to write, or None; by RobustBench's convention model_info/DATASET/NORM/ID.json.

    Raises:
        ValueError: a result of another attack, norm, radius or number of images than the benchmark's, or a field of another form.
    """
    images, norms = PROTOCOL[checks.choice("dataset", dataset, tuple(PROTOCOL))]
    settings = result.get("attack", {})
    norm = settings.get("norm")
    if settings.get("name") != "autoattack" or norm not in norms:
        raise ValueError(f"result of {settings.get('name')!r} in norm {norm!r}: expected AutoAttack in {' or '.join(norms)} for {dataset}")
    eps = norms[norm][1]
    wanted = attacks.autoattack(eps, norm).settings
    differing = sorted(key for key in wanted if settings.get(key) != wanted[key] and key != "eps")
    if abs(settings["eps"] - eps) > 1e-6 * eps:
        differing.append("eps")
    if differing:
        raise ValueError("; ".join(f"result's {key}={settings.get(key)!r}: expected {wanted[key]!r}" for key in differing) + f", RobustBench's on {dataset}")
    if result.get("examples") != images:
        raise ValueError(f"result's examples={result.get('examples')!r}: expected {images}, RobustBench's images of {dataset}")
    for field, value in (("architecture", architecture), ("name", name), ("authors", authors), ("link", link), ("venue", venue)):
        if not isinstance(value, str) or not value.strip() or value != value.strip():
            raise ValueError(f"{field}={value!r}: expected a text")
    if not link.startswith("https://"):
        raise ValueError(f"link={link!r}: expected an address that begins with https://")
    found = _percent("robust accuracy", 100 * result["robust_accuracy"])
    record = {
        "link": link, "name": name, "authors": authors, "additional_data": checks.flag("additional_data", additional_data),
        "number_forward_passes": checks.count("number_forward_passes", number_forward_passes), "dataset": dataset, "venue": venue,
        "architecture": architecture, "eps": _radius(eps), "clean_acc": _percent("accuracy", 100 * result["accuracy"]),
        "reported": found if reported is None else _percent("reported", reported), "autoattack_acc": found,
        **({} if external is None else {"external": _percent("external", external)}), **({} if footnote is None else {"footnote": footnote}),
        "unreliable": checks.flag("unreliable", unreliable)}
    if float(record["autoattack_acc"]) > float(record["clean_acc"]):
        raise ValueError(f"result's robust_accuracy={result['robust_accuracy']:g}: expected at most its accuracy, {result['accuracy']:g}")
    if path is not None:
        with files.atomic(pathlib.Path(path)) as part:
            pathlib.Path(part).write_text(json.dumps(record, indent=2) + "\n")
    return Result(record)


def _percent(field, value):
    """A percentage as RobustBench writes it, "52.42"."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 <= value <= 100:
        raise ValueError(f"{field}={value!r}: expected a percentage from 0 to 100")
    return f"{value:.2f}"


def _radius(eps):
    """"8/255" for a multiple of 1/255, else the number."""
    units = fractions.Fraction(eps * 255).limit_denominator(1000)
    return f"{units.numerator}/255" if units.denominator == 1 else f"{eps:g}"
