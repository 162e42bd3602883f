"""The examples of docs/own_model.md."""
import numpy as np
import pytest

from tests.helpers import doc_examples

FRAMEWORK, FUNCTION = doc_examples.blocks("own_model.md")


def test_function_with_weights_that_change():
    found = doc_examples.run(FUNCTION, "docs/own_model.md")
    assert found["accuracy"] == 0 and np.abs(found["after"] - found["before"]).max() > 0.05


@pytest.mark.slow
def test_module(capsys):
    found = doc_examples.run(FRAMEWORK, "docs/own_model.md")
    said = capsys.readouterr().err.strip()
    assert f"    {said}\n" in (doc_examples.DOCS / "own_model.md").read_text() and said == repr(found["classifier"])
    assert found["result"]["robust_accuracy"] < found["result"]["accuracy"] == 1 and len(found["rows"]) == 1
    assert np.abs(found["adversarial"] - found["images"]).max() <= 4 / 255 + 1e-6
