"""Results in notebooks and as data frames: every public function of a measurement returns one, and their tables hold the numbers."""
import inspect
import json
import pickle
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import adaptation, analysis, evaluation, models, reports
from vmamba_jax.core import results
from vmamba_jax.core.results import Result, Rows, Shown
from vmamba_jax.evaluation import dense, detection, detectors, segmentation, shifts, smoothing
from vmamba_jax.reports import differences

# Public functions that return no result of a measurement but numbers, arrays, functions or what other functions take; a new one is a result unless listed.
OTHERS = {
    evaluation: {"disagreements", "over_classes", "wilson_interval"},
    dense: {"class_weights", "corrupted", "disturbing", "enter", "interval"},
    detection: {"detections_of"},
    detectors: {"annotations_of", "image_scores", "interval"},
    segmentation: {"confusion", "slide"},
    shifts: {"columns", "columns_of", "identifiers", "load", "over_classes", "relabeled", "sliced"},
    smoothing: {"certificate", "lower_bound", "prediction_abstains"},
    analysis: {"attention_fn", "change_rate", "displayed", "feature_errors", "has_scans", "layer_kernels", "scan_attention", "searched_error",
               "selective_bound", "templates", "worst_case_error", "worst_case_perturbation"},
    adaptation: {"adapted_logits", "poison"},
    models: {"as_classifier", "create_model", "entry", "list_models", "logits_fn"},
}


def functions(module):
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        value = getattr(module, name)
        if callable(value) and not inspect.isclass(value) and (hasattr(module, "__all__") or value.__module__ == module.__name__):
            yield name, value


@pytest.mark.parametrize("module", OTHERS, ids=lambda module: module.__name__.removeprefix("vmamba_jax."))
def test_every_measurement_returns_a_result(module):
    found = dict(functions(module))
    assert OTHERS[module] <= set(found)
    for name in set(found) - OTHERS[module]:
        kind = inspect.signature(found[name]).return_annotation
        assert inspect.isclass(kind) and issubclass(kind, Shown), f"{module.__name__}.{name}: expected a return annotation that is a core.results.Shown"


def test_every_result_class_has_tables():
    """Tables of their own, and so do the classes that `reports.read_*` return."""
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))
    kinds = below(Shown) - {Shown}
    assert {Result, Rows, models.Cost, analysis.Attention, detection.CocoAP, differences.Differences, reports.Run} <= kinds
    assert all(kind.tables is not Shown.tables for kind in kinds)
    read = {inspect.signature(getattr(reports, name)).return_annotation for name in reports.__all__ if name.startswith("read_")}
    assert read <= kinds and len(read) >= 8


@pytest.fixture
def pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=lambda rows, columns: (columns, rows)))


def test_tables_of_a_result(pandas):
    result = Result({"accuracy": np.float32(0.5), "accuracy_interval": [0.25, 0.75], "attack": {"name": "pgd", "eps": 0.1}, "correct": np.array([True, False]),
                     "margin": jnp.array([1.5, -2.0]), "map": np.arange(6.0).reshape(2, 3), "images": np.zeros((2, 4, 4, 1), np.float32), "note": None,
                     "stages": [{"name": "a", "broken": 1}, {"name": "b", "interval": [0, 1]}], "transfer": {"x": {"x": 1.0, "y": 0.0}, "y": {"x": 0.5, "y": 0.25}},
                     "tops": [0, 4, 8]}, joined=("correct", "margin", "absent"))
    assert result.to_dataframe() == result.to_dataframe("result") == (
        ["accuracy", "accuracy_interval.low", "accuracy_interval.high", "attack.name", "attack.eps", "images", "note"],
        [[0.5, 0.25, 0.75, "pgd", 0.1, "float32 (2, 4, 4, 1)", None]])
    assert result.to_dataframe("joined") == (["index", "correct", "margin"], [[0, True, 1.5], [1, False, -2.0]])
    assert result.to_dataframe("map") == (["index", "0", "1", "2"], [[0, 0.0, 1.0, 2.0], [1, 3.0, 4.0, 5.0]])
    assert result.to_dataframe("stages") == (["name", "broken", "interval.low", "interval.high"], [["a", 1, None, None], ["b", None, 0, 1]])
    assert result.to_dataframe("transfer") == (["name", "x", "y"], [["x", 1.0, 0.0], ["y", 0.5, 0.25]])
    assert result.to_dataframe("tops") == (["index", "tops"], [[0, 0], [1, 4], [2, 8]])
    assert list(result.tables()) == ["result", "map", "stages", "transfer", "tops", "joined"]
    with pytest.raises(KeyError, match="heading='x': expected one of 'result', 'map'"):
        result.to_dataframe("x")
    with pytest.raises(KeyError, match="expected a result with a table"):
        Rows().to_dataframe()


def test_html_is_cut_and_escaped():
    page = Result({"a<b": "c&d", "accuracy": 0.123456, "n": np.arange(1000), "wide": np.zeros((2, 40))})._repr_html_()
    assert "<td>a&lt;b</td><td>c&amp;d</td>" in page and "0.1235" in page and "n (1,000 rows, 2 columns; the first are shown)" in page
    assert page.count("<tr>") == 2 + 1 + results.ROWS + 1 + 2 and "(2 rows, 41 columns" in page
    assert Rows([{"eps": 0.5}, {"eps": 1}])._repr_html_() == ("<table><caption>result</caption><tr><th>eps</th></tr><tr><td>0.5</td></tr>"
                                                              "<tr><td>1</td></tr></table>")


def test_a_result_is_still_a_dict():
    """Equality, JSON, pickle, `|` and `jax.tree` as for the dict or list of the same content."""
    result, rows = Result({"b": 1, "a": [1, 2]}, images=("a",)), Rows([{"eps": 0.5}])
    assert result == {"b": 1, "a": [1, 2]} and repr(result) == "{'b': 1, 'a': [1, 2]}" and json.dumps([result, rows]) == '[{"b": 1, "a": [1, 2]}, [{"eps": 0.5}]]'
    again = pickle.loads(pickle.dumps(result))
    assert again == result and again.joined == {"images": ("a",)} and type(result | {"c": 1}) is dict
    doubled = jax.tree.map(lambda x: 2 * x, result)
    assert doubled == {"a": [2, 4], "b": 2} and type(doubled) is Result and doubled.joined == result.joined
    assert jax.tree.map(lambda x: 2 * x, rows) == [{"eps": 1.0}] and type(jax.tree.map(str, rows)) is Rows
    assert jax.tree_util.keystr(jax.tree_util.tree_flatten_with_path(result)[0][-1][0]) == "['b']"


def test_records_and_differences(pandas):
    cost = models.Cost(10, 7, 3, {"matmul": 6, "norm": 1})
    assert cost.to_dataframe() == (["parameters", "flops", "activations", "operations.matmul", "operations.norm"], [[10, 7, 3, 6, 1]])
    scores = detection.CocoAP(*(i / 10 for i in range(12)))
    assert scores.AP50 == 0.1 and scores.to_dataframe()[1] == [list(scores)] and scores._asdict()["ARl"] == 1.1 and "AP75" in scores._repr_html_()
    found = differences.Differences(["clean", "PGD"], [("run", True, [{"value": 0.5, "low": 0.25, "high": 0.75}, None])])
    assert found.to_dataframe() == (["run", "paired", "clean", "clean.low", "clean.high", "PGD", "PGD.low", "PGD.high"],
                                    [["run", True, 0.5, 0.25, 0.75, None, None, None]])
    attention = analysis.Attention(jnp.ones((2, 6, 6)) / 6, (2, 3))
    assert [len(row) for row in attention.to_dataframe()[1]] == [4, 4]


def test_missing_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="^to_dataframe needs pandas: pip install pandas$"):
        Result({"accuracy": 1.0}).to_dataframe()


def test_of_an_evaluation(pandas):
    """What the functions return at run time: a clean accuracy, and the summary of it."""
    images, labels = np.eye(3, dtype=np.float32).reshape(3, 1, 3, 1), np.array([0, 1, 1])
    found = evaluation.accuracy(lambda x: x[:, 0, :, 0], (images, labels), batch_size=3)
    assert type(found) is Result and found.to_dataframe("images") == (["index", "correct"], [[0, True], [1, True], [2, False]])
    assert type(evaluation.summary(found)) is Result
