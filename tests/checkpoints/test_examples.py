"""The example models that come with the package: their card says what they do, and they do it."""
import json
import re

import jax
import numpy as np
import pytest

import vmamba_jax
from configs import digits
from experiments import example_weights
from experiments.common import results
from vmamba_jax import checkpoints, data, parallel
from vmamba_jax.checkpoints import examples
from vmamba_jax.checkpoints.store import METADATA
from vmamba_jax.commands import cards


def test_names_and_cards():
    assert examples.names() == ("vmamba_digits", "vmamba_digits_robust")
    assert sum(file.stat().st_size for name in examples.names() for file in examples.folder(name).rglob("*") if file.is_file()) < 2e6
    cards = {name: examples.card(name) for name in examples.names()}
    robust = {name: card["evaluation"]["attacks"]["pgd"]["robust_accuracy"] for name, card in cards.items()}
    assert robust["vmamba_digits_robust"] > 0.5 > 0.1 > robust["vmamba_digits"] and all(card["evaluation"]["accuracy"] > 0.95 for card in cards.values())
    assert all(card["preprocessing"]["size"] == 8 and len(card["classes"]) == 10 and "files" not in card for card in cards.values())


@pytest.mark.parametrize("name", examples.names())
def test_card_is_of_its_files(name):
    """The figures shown are those of metadata.json, whose SHA-256 is that of the weights, and whose recipe that of the config that it names."""
    saved, text = json.loads((examples.folder(name) / METADATA).read_text()), " ".join(cards.text(name).split())
    found, (run, about) = saved["evaluation"], example_weights.RUNS[name]
    rows = [(found["accuracy"], found["accuracy_interval"], f"clean, on {found['examples']} test images")]
    rows += [(row["robust_accuracy"], row["robust_accuracy_interval"], f"under {row['label']}, {row['norm']} {row['eps']}") for row in found["attacks"].values()]
    for accuracy, (low, high), words in rows:
        assert f"{100 * accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}] {words}" in text
    assert len(re.findall(r"[\d.]+ % \[", text)) == len(rows) == 4
    _, variables = vmamba_jax.example(name)
    assert parallel.fingerprint(variables) == saved["sha256"] and saved["sha256"] in text and f"{saved['parameters']:,} parameters" in text
    assert saved["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    config = results.plain(digits.get_config(f"objective={run}"))
    assert saved["config"] == f"digits:objective={run}" and saved["objective"] == config["objective"] and saved["data"] == config["data"]
    assert saved["recipe"] == {key: config[key] for key in example_weights.RECIPE} and saved["overrides"] == config["model"]["overrides"]
    assert {"about": about, **example_weights.FACTS}.items() <= saved.items()
    for words in (saved["commit"], saved["license"], saved["intended_use"], saved["limits"], saved["data_about"], "30 epochs of batches of 64", "step 570"):
        assert words in text, words
    assert f"{len(data.load('digits', 'train')):,} training, {len(data.load('digits', 'validation'))} validation and {found['examples']} test images" in text


def test_accuracy_is_that_of_the_card():
    source, name = data.load("digits", "test"), "vmamba_digits_robust"
    classifier, variables = vmamba_jax.example(name)
    images, labels = zip(*(source[i] for i in range(len(source))), strict=True)
    found = np.asarray(vmamba_jax.logits_fn(classifier, variables)(np.float32(images) / 255 if np.asarray(images).dtype == np.uint8 else np.asarray(images)))
    assert np.mean(found.argmax(-1) == np.asarray(labels)) == pytest.approx(examples.card(name)["evaluation"]["accuracy"], abs=1 / len(source))


def test_open_weights_takes_the_name(tmp_path, monkeypatch):
    opened = checkpoints.open_weights("vmamba_digits")
    assert opened.kind == "converted" and opened.preprocessing["size"] == 8 and opened.class_names(10)[3] == "3"
    _, variables = vmamba_jax.example("vmamba_digits")
    jax.tree.map(np.testing.assert_array_equal, opened.content, variables)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmamba_digits").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):  # a folder of that name is itself meant
        checkpoints.open_weights("vmamba_digits")
    with pytest.raises(ValueError, match="name='nosuch': expected one of vmamba_digits, vmamba_digits_robust"):
        vmamba_jax.example("nosuch")
    with pytest.raises(FileNotFoundError, match="one of the example models vmamba_digits, "):
        checkpoints.open_weights("nosuch")


def test_files_hold_no_path_of_the_machine_that_wrote_them(tmp_path):
    written = tmp_path / "saved"
    checkpoints.save_variables(written, {"params": {"w": np.ones(3, np.float32)}})
    for folder in (written, *map(examples.folder, examples.names())):
        for file in folder.rglob("*"):
            assert not file.is_file() or (str(tmp_path).encode() not in file.read_bytes() and b".part/" not in file.read_bytes()), file
    np.testing.assert_array_equal(checkpoints.load_variables(written)[0]["params"]["w"], np.ones(3))
