"""One reader of weights: every kind of place, and the weights adapted to another head, other channels, another image size."""
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vmamba_jax
from tests.helpers.weight_places import FIELDS, NAMES, vit, write_places
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints import fine_tuning
from vmamba_jax.checkpoints.convert import leaves_of
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.models import Classifier


def equal(found, wanted):
    found, wanted = flatten_dict(found), flatten_dict(wanted)
    assert found.keys() == wanted.keys()
    for path, x in wanted.items():
        np.testing.assert_array_equal(found[path], x, err_msg="/".join(path))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(folder of `write_places`, its variables)."""
    folder = tmp_path_factory.mktemp("weights")
    return folder, write_places(folder)


def test_every_place(places):
    folder, made = places
    for path, options, wanted in (("run", {"weights": "raw"}, 1), ("run", {"weights": "raw", "checkpoint": "latest"}, 2), ("run", {}, 0),
                                  ("run", {"weights": "raw", "checkpoint": "2"}, 2), ("run/checkpoints", {"weights": "raw", "checkpoint": 1}, 1),
                                  ("converted", {}, 2), ("weights.safetensors", {}, 1)):
        equal(checkpoints.read_variables(vit(), folder / path, **options), made[wanted])


def test_what_a_place_says(places):
    folder, _ = places
    run = checkpoints.open_weights(folder / "run", checkpoint="latest")
    assert (run.kind, run.name, run.step, run.classes) == ("run", "deit_tiny", 2, NAMES) and run.create_model() == vit()
    assert run.preprocessing == {"mean": (0.5,), "std": (0.25,), "size": 32}
    assert (run.class_names(3), run.class_names(2), run.class_names(1000)) == (NAMES, None, None)
    converted = checkpoints.open_weights(folder / "converted")
    assert converted.class_names(3) is None and converted.class_names(1000)[0][0] == "n01440764"
    assert (converted.kind, converted.step, converted.classes) == ("converted", None, None) and converted.create_model() == vit()
    assert converted.preprocessing["resize"] == 248
    file = checkpoints.open_weights(f"deit_tiny@{folder / 'weights.safetensors'}")
    assert (file.kind, file.name, file.preprocessing["size"]) == ("file", "deit_tiny", 224) and file.create_model(**FIELDS) == vit()
    with pytest.raises(ValueError, match="weights.safetensors: expected the model's name before it, NAME@"):
        checkpoints.open_weights(folder / "weights.safetensors").create_model()


@pytest.mark.parametrize("path, options, error, message", [
    ("nowhere", {}, FileNotFoundError, "nowhere: No such file or folder"), ("", {}, FileNotFoundError, "no checkpoint here: expected a run's folder"),
    ("run", {"checkpoint": 7}, FileNotFoundError, r"step=7: expected one of \[1, 2\]"), ("run", {"checkpoint": "newest"}, ValueError, "step='newest'"),
    ("run", {"weights": "student"}, ValueError, "weights='student': expected None, 'ema' or 'raw'"),
    ("converted", {"weights": "ema"}, ValueError, "weights='ema': expected None")])
def test_wrong_places(places, path, options, error, message):
    with pytest.raises(error, match=message):
        checkpoints.read_variables(vit(), places[0] / path, **options)


def test_unknown_name_before_a_place(places):
    with pytest.raises(KeyError, match="alexnet"):
        checkpoints.open_weights(f"alexnet@{places[0] / 'converted'}")


@pytest.mark.parametrize("path", ["run", "converted", "weights.safetensors"])
def test_keep_is_strict(places, path):
    """Every kind of place: an error, where the model has other classes, channels or widths."""
    for other, misfit in ((vit(num_classes=4), 2), (vit(in_channels=1), 1), (vit(embed_dim=16), 19)):
        with pytest.raises(checkpoints.MisfitError, match=rf"{path}( \(deit_tiny with .*\))?: the checkpoint does not fit ViT") as caught:
            checkpoints.read_variables(other, places[0] / path)
        assert len(caught.value.misfit.misshapen) == misfit


@pytest.mark.parametrize("path, wanted", [("run", 0), ("converted", 2), ("weights.safetensors", 1)])
def test_another_head_channels_and_size(places, path, wanted):
    folder, made = places
    model, said = vit(num_classes=5, in_channels=1, image_size=48), []
    found = checkpoints.read_variables(model, folder / path, "new", key=jax.random.key(3), log=said.append)
    assert [line.removeprefix(f"{folder / path}: ") for line in said] == [
        "pos_embed: resized from (1, 5, 8) to (1, 10, 8)", "input channels: 1 instead of 3, their sum", "head: new, of 5 classes; the weights have 3"]
    old, new = made[wanted]["params"], found["params"]
    fresh = Classifier(model).init(jax.random.key(3), (48, 48, 1))["params"]
    np.testing.assert_allclose(new["head"]["kernel"], fresh["head"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(new["patch_embed"]["kernel"], old["patch_embed"]["kernel"].sum(2, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(new["pos_embed"][:, 0], old["pos_embed"][:, 0])
    equal(new["blocks_0"], old["blocks_0"])


@pytest.mark.parametrize("path", ["run", "weights.safetensors"])
def test_slice(places, path, monkeypatch):
    folder, made = places
    if path != "run":  # as if three classes were all of ImageNet
        monkeypatch.setattr(imagenet, "classes", lambda: (("n01", "apple, Malus"), ("n02", "banana"), ("n03", "cherry")))
    head = made[0 if path == "run" else 1]["params"]["head"]
    for names in (("cherry", "Apple"), *([("n03", "n01"), ("2", "0"), ("cherry", "malus")] if path != "run" else [])):
        found = checkpoints.read_variables(vit(num_classes=2), folder / path, "slice", classes=names, log=print)["params"]["head"]
        np.testing.assert_array_equal(found["kernel"], head["kernel"][:, [2, 0]])
        np.testing.assert_array_equal(found["bias"], head["bias"][[2, 0]])
    for classes, message in ((("cherry", "plum"), "classes='plum': expected classes of the weights, such as"), (None, "classes=None: expected"),
                             (NAMES, "classes=3 names: expected the names of the model's 2 classes")):
        with pytest.raises(ValueError, match=message):
            checkpoints.read_variables(vit(num_classes=2), folder / path, "slice", classes=classes)


def test_slice_needs_names(places):
    with pytest.raises(ValueError, match="head='slice': expected weights with names of their 3 classes"):
        checkpoints.read_variables(vit(num_classes=2), places[0] / "converted", "slice", classes=("apple", "cherry"))


def test_channels_keep_the_response_to_equal_channels():
    kernel = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
    for n in (1, 2, 3, 4, 6, 7):
        found = fine_tuning.channels(kernel, n)
        assert found.shape == (2, 2, n, 4)
        if n in (1, 3, 6):  # multiples of the weights' channels, and their sum
            np.testing.assert_allclose(found.sum(2), kernel.sum(2))
    np.testing.assert_allclose(fine_tuning.channels(kernel, 4)[:, :, 3], kernel[:, :, 0] * 3 / 4)


@pytest.mark.parametrize("name, fields", [
    ("vmamba_tiny", {"dims": (8,), "depths": (1,)}), ("vim_tiny", {"embed_dim": 8, "depth": 1}), ("deit_tiny", FIELDS),
    ("swin_tiny", {"embed_dim": 8, "depths": (1,), "num_heads": (2,)}), ("convnext_tiny", {"dims": (8,), "depths": (1,)}),
    ("mambaout_tiny", {"dims": (8,), "depths": (1,)}), ("spatialmamba_tiny", {"dims": (8,), "depths": (1,)}),
    ("mambavision_tiny", {"dims": (8,), "depths": (1,), "num_heads": (1,), "windows": (1,)}),
    ("resnet50", {"layers": (1,), "channels": (4,)}), pytest.param("efficientnet_lite0", {}, marks=pytest.mark.slow)])
def test_every_family_names_its_head_and_its_first_kernel(name, fields):
    model = vmamba_jax.create_model(name, num_classes=7, in_channels=5, **fields)
    leaves = leaves_of(model)
    assert [leaves[path].shape[-1] for path in fine_tuning.head_paths(model)] == [7, 7] and fine_tuning.head_paths(model)[0][-1] == "kernel"
    assert len(leaves[fine_tuning.images_path(model)].shape) == 4 and leaves[fine_tuning.images_path(model)].shape[2] == 5


def test_module_of_ones_own(places, tmp_path):
    checkpoints.save_variables(tmp_path / "own", {"params": {"w": np.ones(2)}})
    equal(checkpoints.read_variables(Classifier(object()), tmp_path / "own"), {"params": {"w": np.ones(2)}})
    with pytest.raises(TypeError, match="model=object: expected one of"):
        checkpoints.read_variables(Classifier(object()), tmp_path / "own", "new")
