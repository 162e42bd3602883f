"""Weights as training programs store them: wrappers, averages, prefixes, copies, normalizers and shards are recognized, or named in the first line."""
import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import vmamba_jax
from tests.helpers.command_runs import run_command
from tests.helpers.torch_files import Raw, Writer, write
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints.__main__ import main

MODEL = vmamba_jax.create_model("resnet18", num_classes=5, layers=(1,), channels=(8,), stem_width=8)
WEIGHTS = {name: np.random.default_rng(i).random(shape, np.float32) for i, (name, shape) in enumerate(checkpoints.original_shapes(MODEL).items())}
PLAIN = checkpoints.convert(MODEL, WEIGHTS)
ZEROS = {name: np.zeros_like(x) for name, x in WEIGHTS.items()}


def under(prefix, weights=WEIGHTS):
    return {prefix + name: x for name, x in weights.items()}


def taken(file, weights=None):
    """Asserts that `convert` takes WEIGHTS from the file."""
    made = checkpoints.convert(MODEL, file, weights)
    jax.tree.map(np.testing.assert_array_equal, made, PLAIN)


@pytest.mark.parametrize("prefix", [
    "module.", "backbone.", "_orig_mod.", "model.", "net.", "module.model.", "_orig_mod.module.", "module._orig_mod.", "module._orig_mod.model.",
    "lit_model.anything.net.", "_fsdp_wrapped_module._orig_mod.", "a.b.c.d.e."])
def test_prefixes(prefix):
    taken(under(prefix))
    taken({"state_dict": under(prefix), "pytorch-lightning_version": "2.1.0", "callbacks": {"ModelCheckpoint": {"best_k_models": {"a": np.float32(1)}}}})


def test_parts_that_torch_inserts():
    taken({name.replace("layer1.0.", "layer1._orig_mod.0._checkpoint_wrapped_module."): x for name, x in WEIGHTS.items()})
    with pytest.raises(ValueError, match="expected one spelling of every weight"):
        checkpoints.convert(MODEL, WEIGHTS | under("_orig_mod."))


@pytest.mark.parametrize("key", ["model", "state_dict", "module", "model_state_dict", "net", "weights", "anything"])
def test_dicts(key):
    file = {key: WEIGHTS, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": []}, "amp": {"scale": np.ones(2)},
            "sgd": {"state": {"exp_avg": ZEROS}, "param_groups": []}, "class_weights": np.ones(5), "ds_version": "0.14"}
    taken(file)
    taken({"outer": file})


@pytest.mark.parametrize("average", [
    {"state_dict_ema": WEIGHTS}, {"model_ema": WEIGHTS}, {"ema": WEIGHTS}, {"ema_state_dict": under("module.")}, {"swa_model": {"module": WEIGHTS}},
    {"ema": {"decay": 0.99, "updates": 3, "module": WEIGHTS}}, {"ema": WEIGHTS | {"decay": 0.99}},
    {"model_ema": under("module.") | {"n_averaged": np.int64(7)}}, {"averaged_model_state_dict": under("module._orig_mod.")}])
def test_averaged_weights_are_preferred(average):
    file = {"state_dict": ZEROS, "epoch": 3, **average}
    taken(file)
    taken(file, "ema")
    raw = checkpoints.convert(MODEL, file, "raw")
    assert not any(x.any() for x in jax.tree.leaves(raw))
    with pytest.raises(ValueError, match="weights='best': expected 'ema', 'raw' or a name of a set of weights in the file: 'state_dict' \\(raw\\), "):
        checkpoints.convert(MODEL, file, "best")


def test_averages_among_the_names():
    file = {"state_dict": under("model.", ZEROS) | under("model_ema.module.") | {"model_ema.n_averaged": np.int64(3)}}
    taken(file)
    taken(file, "state_dict:model_ema.module.")
    taken(ZEROS | under("ema."))
    taken(WEIGHTS | under("ema.", ZEROS), "raw")


def test_programs_that_swap_the_average():
    """mmengine's EMAHook and Lightning's WeightAveraging save the average as "state_dict"."""
    for file in ({"state_dict": WEIGHTS, "ema_state_dict": under("module.", ZEROS) | {"steps": np.int64(1)}, "meta": {"mmengine_version": "0.10.4"}},
                 {"state_dict": WEIGHTS, "current_model_state": ZEROS, "pytorch-lightning_version": "2.5"}):
        taken(file)
        assert not any(x.any() for x in jax.tree.leaves(checkpoints.convert(MODEL, file, "raw")))


def test_several_sets_are_named():
    for file, labels in (({"student": WEIGHTS, "teacher": ZEROS}, ("student", "teacher")), (under("a.") | under("b.", ZEROS), ("a.", "b.")),
                         ({"ema_1": WEIGHTS, "ema_2": ZEROS, "model": ZEROS}, ("ema_1", "ema_2"))):
        with pytest.raises(ValueError) as raised:
            checkpoints.convert(MODEL, file)
        assert all(repr(label) in str(raised.value) for label in labels) and "\n" not in str(raised.value)
        taken(file, labels[0])
    with pytest.raises(ValueError, match="weights='ema': expected"):
        checkpoints.convert(MODEL, WEIGHTS, "ema")


def robust_file(second=WEIGHTS):
    """As robustness saves its models: the weights twice, and a normalizer."""
    file = under("module.model.") | under("module.attacker.model.", second)
    for where in ("normalizer", "attacker.normalize"):
        file |= {f"module.{where}.new_mean": np.full((3, 1, 1), 0.25, np.float32), f"module.{where}.new_std": np.full((3, 1, 1), 0.5, np.float32)}
    return {"model": file, "epoch": 105, "optimizer": {}}


def test_attack_wrappers():
    taken(robust_file())
    with pytest.raises(ValueError, match=r"several different sets.*module.model.*module.attacker.model"):
        checkpoints.convert(MODEL, robust_file(ZEROS))
    taken(robust_file(ZEROS), "model:module.model.")
    taken({f"module.{name}": x for name, x in WEIGHTS.items()} | {"mu": np.zeros((1, 3, 1, 1)), "sigma": np.ones((1, 3, 1, 1))})


def test_openmmlab_heads():
    file = {("head." if name.startswith("fc.") else "backbone.") + name: x for name, x in WEIGHTS.items()}
    taken({"state_dict": file, "meta": {"mmengine_version": "0.10.4"}})


def test_the_first_line_names_what_was_found():
    one_wrong = {name: x for name, x in WEIGHTS.items() if name != "fc.bias"}
    for file, words in (({"state_dict": under("model.", one_wrong)}, "'state_dict', prefix 'model.'"), (under("xyz.other."), "prefix 'xyz.other.'"),
                        ({"state_dict": under("m.", one_wrong) | {"loss.weight": np.ones(4)}}, "prefix 'm.'")):
        file = {name.replace("conv1", "conv_1"): x for name, x in file.items()} if "xyz" in words else file
        with pytest.raises(ValueError) as raised:
            checkpoints.convert(MODEL, file)
        first, *lists = str(raised.value).splitlines()
        assert words in first and lists, first
    with pytest.raises(ValueError) as raised:  # a file of another model: no list of every weight
        checkpoints.convert(MODEL, under("xyz.", {f"tower.{i}": np.ones(2) for i in range(500)}))
    assert "prefix 'xyz.tower.'" in str(raised.value).splitlines()[0] and len(str(raised.value)) < 2000


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype):
    made = checkpoints.convert(MODEL, {name: x.astype(dtype) for name, x in WEIGHTS.items()})
    expected = checkpoints.convert(MODEL, {name: x.astype(dtype).astype(np.float32) for name, x in WEIGHTS.items()})
    jax.tree.map(np.testing.assert_array_equal, made, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.complex64, ml_dtypes.float8_e4m3fn])
def test_quantized_weights_are_refused(dtype):
    with pytest.raises(ValueError, match=f"1 of another type: fc.weight is {np.dtype(dtype)}, expected one of float32"):
        checkpoints.convert(MODEL, WEIGHTS | {"fc.weight": WEIGHTS["fc.weight"].astype(dtype)})


def shards(folder, end="safetensors"):
    """Writes the weights in two files with their index; returns the index's path."""
    names, places = list(WEIGHTS), {}
    for k, part in enumerate((names[:9], names[9:])):
        place = f"model-{k + 1:05d}-of-00002.{end}"
        safetensors.numpy.save_file({name: WEIGHTS[name] for name in part}, folder / place)
        places |= dict.fromkeys(part, place)
    (folder / f"model.{end}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return folder / f"model.{end}.index.json"


def test_shards(tmp_path):
    path = shards(tmp_path)
    taken(checkpoints.read_torch(path))
    jax.tree.map(np.testing.assert_array_equal, checkpoints.read_variables(MODEL, path), PLAIN)
    index = json.loads(path.read_text())
    for change, message in (({"fc.bias": "../x.safetensors"}, "files in the same folder"), ({"fc.bias": 3}, "weight_map"), ({"extra": "model-00001-of-00002.safetensors"}, "differing: extra"),
                            ({"fc.bias": "model-00001-of-00002.safetensors"}, "differing: fc.bias")):
        path.write_text(json.dumps({"weight_map": index["weight_map"] | change}))
        with pytest.raises(ValueError, match=message) as raised:
            checkpoints.read_torch(path)
        assert str(tmp_path) in str(raised.value)
    path.write_text(json.dumps(index))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors: no such file, which model.safetensors.index.json lists"):
        checkpoints.read_torch(path)


def test_inspect_shows_what_was_recognized(tmp_path, capsys):
    averaged = {"state_dict": under("module.", ZEROS), "state_dict_ema": WEIGHTS, "epoch": 3}
    lightning = {"state_dict": under("model."), "pytorch-lightning_version": "2.1.0"}
    mm = {"state_dict": under("backbone."), "meta": {"mmengine_version": "0.10.4"}}
    for file, lines in ((averaged, ("weights ('state_dict', prefix 'module.', raw, 17 names)", "weights ('state_dict_ema', ema, 17 names)")),
                        (lightning, ("format: PyTorch Lightning 2.1.0", "weights ('state_dict', prefix 'model.', raw, 17 names)")),
                        (mm, ("format: OpenMMLab, mmengine_version 0.10.4", "weights ('state_dict', prefix 'backbone.', raw, 17 names)")),
                        (robust_file()["model"], ("weights (prefix 'module.model.', raw, 17 names)", "weights (prefix 'module.attacker.model.', raw, 17 names)"))):
        status, out, err = run_command(main, capsys, "inspect", write(tmp_path / "x.pth", file, "zip"))
        assert status == 0 and err == ""
        for line in lines:
            assert line.replace("17 names", f"{len(WEIGHTS)} names") in out.splitlines(), out


def test_the_command_names_file_and_set(tmp_path, capsys):
    path = write(tmp_path / "x.pth", robust_file(), "zip")
    options = ["--model", "resnet18", "--override", "num_classes=5", "layers=(1,)", "channels=(8,)", "stem_width=8", "--out"]
    status, out, err = run_command(main, capsys, "convert", path, *options, tmp_path / "made")
    assert (status, err) == (0, "") and "prefix 'module.model.'" in out
    metadata = checkpoints.load_variables(tmp_path / "made")[1]
    assert metadata["preprocessing"] == {"range": [0, 1], "mean": [0.25] * 3, "std": [0.5] * 3}  # the file's normalizer
    status, out, err = run_command(main, capsys, "convert", path, *options, tmp_path / "other", "--weights", "ema")
    assert status == 2 and err.startswith(f"error: {path}: weights='ema': expected 'ema', 'raw' or a name") and err.count("\n") == 1


def test_long_keys_do_not_unfold(tmp_path, capsys):
    """One long key over many values, and one list in many places, which a list of full names would multiply."""
    inner = {f"w{i}": np.ones(1, np.float32) for i in range(50)}
    shared = Raw(b"](" + Writer().emit([1, 2]) + b"q\x00" + b"h\x00" * 1000 + b"e")
    path = write(tmp_path / "x.pth", {"k" * 500_000: inner, "again": shared}, "zip")
    tracemalloc.start()
    status, out, err = run_command(main, capsys, "inspect", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 0 and len(out) < 50_000 and "50 arrays, 50 elements, 0.000 MB; 2 other values" in out and peak < 30e6
