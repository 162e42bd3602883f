"""Golden arrays of the original models: loading, and comparison with a model of the same weights and images."""
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import checkpoints

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"


@functools.cache
def load(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        arrays = {key: arrays[key] for key in arrays.files}
    return arrays, json.loads((GOLDEN / f"{name}.json").read_text())


def released(family):
    """{original name: shape} of a family's released file."""
    return {name: tuple(shape) for name, shape in json.loads((GOLDEN / f"released_{family}.json").read_text()).items()}


def weights(name, dtype):
    arrays, info = load(name)
    return {key: arrays[key].astype(dtype) if arrays[key].dtype.kind == "f" else arrays[key] for key in info["state_dict"]}


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


def run(model, name, dtype):
    """(logits, gradient of the mean cross entropy with respect to the images, recorded intermediates), in one compiled call."""
    arrays, _ = load(name)
    variables, labels = checkpoints.convert(model, weights(name, dtype)), arrays["labels"]

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def everything(images):
        logits, recorded = model.apply(variables, images, mutable=["intermediates"])
        return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean(), (logits, recorded["intermediates"])

    gradient, (logits, recorded) = everything(jnp.asarray(nhwc(arrays["input"]), dtype))
    return logits, gradient, recorded


def check_float64(model, name):
    """Compare logits and input gradient at 1e-9 and return the recorded intermediates. Needs the x64 fixture."""
    arrays, _ = load(name)
    logits, gradient, recorded = run(model, name, np.float64)
    assert logits.dtype == jnp.float64
    np.testing.assert_allclose(logits, arrays["logits64"], atol=1e-9)
    np.testing.assert_allclose(gradient, nhwc(arrays["input_grad64"]), atol=1e-9 * np.abs(arrays["input_grad64"]).max())
    return recorded


def check_float32(model, name):
    arrays, _ = load(name)
    logits, gradient, _ = run(model, name, np.float32)
    np.testing.assert_allclose(logits, arrays["logits"], atol=2e-5)
    np.testing.assert_allclose(gradient, nhwc(arrays["input_grad"]), atol=2e-5 * np.abs(arrays["input_grad"]).max())


def check_gradients(model, name, float64=True):
    """Compare logits, input gradient and every weight's gradient of sum(logits x cotangent), at 1e-9 (gradients of weights, stored in float32: 1e-6) or,
    in float32, at 2e-5 of the largest value. Returns the recorded intermediates; `float64` needs the x64 fixture."""
    arrays, info = load(name)
    dtype, suffix, tolerance = (np.float64, "_f64", 1e-9) if float64 else (np.float32, "", 2e-5)
    variables = checkpoints.convert(model, weights(name, dtype))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def everything(variables, images):
        logits, recorded = model.apply(variables, images, mutable=["intermediates"])
        return (logits * arrays["cotangent"]).sum(), (logits, recorded["intermediates"])

    (gradients, gradient), (logits, recorded) = everything(variables, jnp.asarray(nhwc(arrays["input"]), dtype))
    assert logits.dtype == dtype
    gradients = checkpoints.to_state_dict(model, gradients)
    assert gradients.keys() == set(info["state_dict"])
    for found, wanted, near in ((logits, arrays["logits" + suffix], tolerance), (gradient, nhwc(arrays["input_grad" + suffix]), tolerance),
                                *((gradients[key], arrays[f"grad/{key}"], max(tolerance, 1e-6)) for key in gradients)):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=near * np.abs(wanted).max())
    return recorded


def check_logits(model, name):
    """Compare the float32 logits alone with those of a file that `check_gradients` reads: a program that compiles in a second."""
    arrays, _ = load(name)
    variables = checkpoints.convert(model, weights(name, np.float32))
    np.testing.assert_allclose(jax.jit(model.apply)(variables, nhwc(arrays["input"])), arrays["logits"], rtol=0, atol=2e-5 * np.abs(arrays["logits"]).max())


def abstract(model, side=64):
    """Shapes of the model's variables; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    return jax.eval_shape(lambda images: model.init(jax.random.key(0), images), images)


def count(model, side=64):
    return sum(x.size for x in jax.tree.leaves(abstract(model, side)["params"]))
