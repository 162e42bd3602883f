"""RobustBench's entry of a result: its fields, in its order and form, and results that are not of its protocol."""
import json

import pytest

from vmamba_jax import attacks, evaluation

ABOUT = {"architecture": "VMamba-T", "name": "A Paper", "authors": "A. Author, B. Author", "link": "https://arxiv.org/abs/2401.10166", "venue": "arXiv, Jan 2024"}


def result(eps=4 / 255, norm="linf", examples=5000, robust=0.5242, **options):
    return {"accuracy": 0.741, "robust_accuracy": robust, "examples": examples, "attack": attacks.autoattack(eps, norm, **options).settings}


def test_record(tmp_path):
    """The form of its own file of ConvNeXt-S + ConvStem."""
    path = tmp_path / "Author2024Paper.json"
    record = evaluation.robustbench_record(result(), dataset="imagenet", path=path, **ABOUT)
    assert record == {**{key: ABOUT[key] for key in ("link", "name", "authors")}, "additional_data": False, "number_forward_passes": 1, "dataset": "imagenet",
                      "venue": ABOUT["venue"], "architecture": "VMamba-T", "eps": "4/255", "clean_acc": "74.10", "reported": "52.42",
                      "autoattack_acc": "52.42", "unreliable": False}
    assert list(record) == ["link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps", "clean_acc",
                            "reported", "autoattack_acc", "unreliable"]
    assert json.loads(path.read_text()) == record
    more = evaluation.robustbench_record(result(0.5, "l2", 10_000), dataset="cifar10", reported=60, external=50.5, footnote="More.", additional_data=True, **ABOUT)
    assert (more["eps"], more["reported"], more["external"], more["footnote"], more["additional_data"]) == ("0.5", "60.00", "50.50", "More.", True)
    assert evaluation.robustbench_record(result(8 / 255, examples=10_000), dataset="cifar100", **ABOUT)["eps"] == "8/255"


@pytest.mark.parametrize("given,options,words", [
    (result(8 / 255), {}, "eps=0.03137.*: expected 0.01568.*, RobustBench's on imagenet"), (result(0.5, "l2"), {}, "result of 'autoattack' in norm 'l2'"),
    (result(examples=1000), {}, "examples=1000: expected 5000"), (result(steps=20), {}, "steps=20: expected 100"), (result(version="plus"), {}, "version='plus'"),
    (result() | {"attack": attacks.pgd(4 / 255, 10).settings}, {}, "result of 'pgd' in norm 'linf': expected AutoAttack"),
    (result(robust=0.8), {}, "robust_accuracy=0.8: expected at most its accuracy, 0.741"), (result(), {"dataset": "mnist"}, "dataset='mnist'"),
    (result(), {"link": "arxiv.org"}, "link='arxiv.org': expected an address"), (result(), {"venue": " "}, "venue=' ': expected a text"),
    (result(), {"reported": 0.5242e4}, "reported=5242.*: expected a percentage"), (result(), {"number_forward_passes": 0}, "number_forward_passes=0")])
def test_other_results(given, options, words):
    with pytest.raises(ValueError, match=words):
        evaluation.robustbench_record(given, **{"dataset": "imagenet"} | ABOUT | options)
