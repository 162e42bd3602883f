"""Models as StableHLO files: equal outputs and gradients back, programs for all platforms, damage noticed."""
import zipfile

import jax
import numpy as np
import pytest

import vmamba_jax
from vmamba_jax import checkpoints, models

CLASSIFIER = models.Classifier(vmamba_jax.create_model("vmamba_tiny", dims=(8,), depths=(1,), num_classes=3, patch_size=2))
SHAPE = (12, 8, 3)


@pytest.fixture(scope="module")
def variables():
    return CLASSIFIER.init(jax.random.key(0), SHAPE)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory, variables):
    path = tmp_path_factory.mktemp("exported") / "model.zip"
    checkpoints.export_model(path, CLASSIFIER, variables, SHAPE, batch_size=2, metadata={"note": "ours"})
    return path


@pytest.mark.slow
def test_back_again(file, variables, images):
    """Any number of images, in the exported batches; the same logits."""
    exported, logits_fn = checkpoints.load_exported(file), vmamba_jax.logits_fn(CLASSIFIER, variables)
    for n in (2, 3, 4):
        np.testing.assert_allclose(exported(images[:n]), logits_fn(images[:n]), atol=1e-6)
    assert exported(images[:0]).shape == (0, 3)
    assert exported.metadata["note"] == "ours" and exported.metadata["image_shape"] == list(SHAPE)
    with pytest.raises(ValueError, match=r"\(n, 12, 8, 3\)"):
        exported(images[:, :8])


def test_gradients(tmp_path, variables, images):
    checkpoints.export_model(tmp_path / "model.zip", CLASSIFIER, variables, SHAPE, batch_size=2, platforms=("cpu",), gradients=True)
    exported, logits_fn = checkpoints.load_exported(tmp_path / "model.zip"), vmamba_jax.logits_fn(CLASSIFIER, variables)
    gradient = lambda f: jax.grad(lambda x: f(x)[:, 1].sum())(images[:2])
    np.testing.assert_allclose(gradient(exported), gradient(logits_fn), atol=1e-6)


@pytest.mark.slow
def test_gradients_of_the_other_platforms(tmp_path, variables):
    checkpoints.export_model(tmp_path / "model.zip", CLASSIFIER, variables, SHAPE, platforms=("tpu", "cuda"), gradients=True)
    for platform in ("tpu", "cuda"):
        assert checkpoints.load_exported(tmp_path / "model.zip", platform).program.has_vjp()


def test_kernels_of_every_platform(file):
    """TPU's and CUDA's programs carry the Pallas kernels, the CPU's none; the weights lie in the file once."""
    with zipfile.ZipFile(file) as archive:
        programs = {platform: jax.export.deserialize(bytearray(archive.read(f"{platform}.jax_export"))) for platform in ("cpu", "tpu", "cuda")}
        assert sorted(archive.namelist()) == ["cpu.jax_export", "cuda.jax_export", "metadata.json", "tpu.jax_export", "weights.safetensors"]
    for platform, program in programs.items():
        assert program.platforms == (platform,) and [aval.shape for aval in program.out_avals] == [(2, 3)]
    text = {platform: program.mlir_module() for platform, program in programs.items()}
    assert "tpu_custom_call" in text["tpu"] and "mosaic_gpu" in text["cuda"] and "custom_call" not in text["cpu"].replace("custom_call @Sharding", "")
    with pytest.raises(ValueError, match="platform='rocm': expected one of cpu, tpu, cuda"):
        checkpoints.load_exported(file, "rocm")


def test_weights_of_any_model(tmp_path, images):
    """A model with statistics, for one platform."""
    classifier = models.Classifier(vmamba_jax.create_model("resnet18", layers=(1,), channels=(4,), num_classes=3, stem="cifar", stem_width=4))
    variables = classifier.init(jax.random.key(0), SHAPE)
    checkpoints.export_model(tmp_path / "model.zip", classifier, variables, SHAPE, batch_size=4, platforms=("cpu",))
    np.testing.assert_allclose(checkpoints.load_exported(tmp_path / "model.zip")(images), vmamba_jax.logits_fn(classifier, variables)(images), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_damage_is_noticed(file, tmp_path):
    whole, broken = file.read_bytes(), tmp_path / "broken.zip"
    with zipfile.ZipFile(file) as archive:
        offsets = {info.filename: info.header_offset + 200 for info in archive.infolist()}
    rng = np.random.default_rng(0)
    for at in [offsets["weights.safetensors"], offsets["cpu.jax_export"], *rng.integers(0, offsets["cpu.jax_export"], 30)]:
        content = bytearray(whole)
        content[at] ^= 0x10
        broken.write_bytes(content)
        try:
            checkpoints.load_exported(broken)
        except ValueError as error:
            assert "broken.zip" in str(error)
        else:  # a byte that nothing reads: the zip's own time stamps and the like
            assert at not in offsets.values()
    for content in (b"", whole[:len(whole) // 2], b"not a zip"):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match="broken.zip"):
            checkpoints.load_exported(broken)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        checkpoints.load_exported(tmp_path / "nowhere")


@pytest.mark.parametrize("options,words", [
    (dict(platforms=("cpu", "metal")), "metal"), (dict(platforms=()), "platforms=()"), (dict(batch_size=0), "batch_size=0"),
])
def test_wrong_arguments(tmp_path, variables, options, words):
    with pytest.raises(ValueError) as raised:
        checkpoints.export_model(tmp_path / "model.zip", CLASSIFIER, variables, SHAPE, **options)
    assert words in str(raised.value) and not list(tmp_path.iterdir())
