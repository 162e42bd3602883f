"""Cost of a model's forward pass: parameters, multiply-adds and activations, counted from the program that JAX traces.

The convention is the literature's, so that the counts equal the published figures: "FLOPs" are multiply-adds, of which a matrix product or a convolution
has one for each term of its sums, a selective scan 9 for each state and position, and a layer norm 5 for each element. Other element-wise operations
(activations, softmax, sums, RMS norms, batch norms, which inference merges into convolutions), pooling and copies count as 0.

Source: fvcore's flop count, with VMamba's rule for the scan (arXiv 2401.10166 and its repository). Activations: Radosavovic et al., arXiv 2003.13678.
"""
import collections
import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core.results import Record
from vmamba_jax.models import catalog
from vmamba_jax.models.classifier import Classifier

SCAN_STATE, SCAN_SKIP, NORM_ELEMENT = 9, 1, 5  # multiply-adds of a scan for each position, channel and state; of its D skip; of a layer norm


@dataclasses.dataclass(frozen=True)
class Cost(Record):
    """Cost of the forward pass of one image.

    Attributes:
        parameters: number of trainable parameters.
        flops: multiply-adds, see the module.
        activations: output elements of all matrix products, convolutions and scans.
        operations: {kind: multiply-adds}, which sum to `flops`; the kinds are "matmul", "conv", "scan", "norm" and "fft".
    """
    parameters: int
    flops: int
    activations: int
    operations: dict

    @property
    def gflops(self):
        """Multiply-adds in units of 1e9."""
        return self.flops / 1e9


def cost(model, image_size=None) -> Cost:
    """The `Cost` of a model's forward pass of one image, from shapes alone: nothing is compiled or run.

    Args:
        model: a catalog name, a Linen module called as `model(images)`, or a `Classifier`.
        image_size: side of the images in pixels, or (height, width); None: the size of a catalog name's released evaluation.

    Raises:
        KeyError: an unknown name.
        TypeError: `model` is neither of the three.
        ValueError: no image_size for a module, a size that the model rejects, or a loop without a fixed number of steps around counted operations.
    """
    if isinstance(model, str):
        image_size = catalog.entry(model).image_size if image_size is None else image_size
        model = catalog.create_model(model)
    model = model.model if isinstance(model, Classifier) else model
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={model!r}: expected a catalog name, a Linen module or a Classifier")
    height, width = _sides(image_size)
    images = jax.ShapeDtypeStruct((1, height, width, getattr(model, "in_channels", 3)), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    counted, activations = count(jax.make_jaxpr(model.apply)(variables, images).jaxpr)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables.get("params", {})))
    return Cost(parameters, sum(counted.values()), activations, dict(counted))


def _sides(image_size):
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size,) * 2
    if len(sides) != 2 or not all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side > 0 for side in sides):
        raise ValueError(f"image_size={image_size!r}: expected the side of the images in pixels, or (height, width)")
    return sides


# ---- walk

def count(jaxpr, *, arithmetic=False):
    """({kind: multiply-adds}, activations) of a program and of those inside it; errors are those of `cost`.

    Args:
        jaxpr: a traced program.
        arithmetic: whether element-wise arithmetic counts too, as the kind "arithmetic": one for each element of the result, four of a complex one.
    """
    counted, activations = collections.Counter(), 0
    primitives = PRIMITIVES | dict.fromkeys(ARITHMETIC, _arithmetic) if arithmetic else PRIMITIVES
    for equation in jaxpr.eqns:
        rule = primitives.get(equation.primitive.name) or FUNCTIONS.get(_function(equation))
        found, kept = rule(equation) if rule else _inside(equation, arithmetic)
        counted.update(found)
        activations += kept
    return counted, activations


def _inside(equation, arithmetic):
    """The count of an equation's inner programs: of the most expensive branch, of each step of a loop, of all programs of any other equation."""
    found = [count(inner, arithmetic=arithmetic) for inner in _inner(equation)]
    match equation.primitive.name:
        case "cond":  # one branch for each platform, where the program has several
            return max(found, key=lambda pair: sum(pair[0].values()))
        case "scan":
            (counted, activations), steps = found[0], equation.params["length"]
            return {kind: steps * flops for kind, flops in counted.items()}, steps * activations
        case "while" if any(counted for counted, _ in found):
            raise ValueError(f"model: expected loops with a fixed number of steps, got a while loop around {', '.join(found[-1][0] or found[0][0])}")
    return sum((counted for counted, _ in found), collections.Counter()), sum(activations for _, activations in found)


def _inner(equation):
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part


def _function(equation):
    """Name of the function that a call's inner program was traced from; "" for other equations."""
    if equation.primitive.name in ("jit", "pjit"):
        return equation.params["name"]
    if equation.primitive.name == "custom_jvp_call":
        return getattr(equation.params["call_jaxpr"].jaxpr.debug_info, "func_name", "")
    return ""


# ---- rules: equation -> ({kind: multiply-adds}, activations)

def _matmul(equation):
    (contracted, _), _ = equation.params["dimension_numbers"]
    out, left = equation.outvars[0].aval, equation.invars[0].aval
    return {"matmul": out.size * math.prod(left.shape[axis] for axis in contracted)}, out.size


def _conv(equation):
    out, kernel = equation.outvars[0].aval, equation.invars[1].aval
    features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return {"conv": out.size * kernel.size // features}, out.size


def _causal_conv(equation):
    out, taps = equation.outvars[0].aval, equation.invars[1].aval.shape[0]
    return {"conv": out.size * taps}, out.size


def _norm(equation):
    return {"norm": NORM_ELEMENT * equation.outvars[0].aval.size}, 0


def _fft(equation):
    """2.5 n log2 n multiply-adds of a complex transform of length n, half of it if one side is real."""
    ends, lengths = (equation.invars[0].aval, equation.outvars[0].aval), equation.params["fft_lengths"]
    n, real = math.prod(lengths), any(jnp.issubdtype(end.dtype, jnp.floating) for end in ends)
    transforms = max(math.prod(end.shape[:-len(lengths)]) for end in ends)
    return {"fft": round((1.25 if real else 2.5) * transforms * n * math.log2(max(n, 1)))}, 0


def _selective_scan(equation):
    u, _, A, _, _, *skip_and_bias = (variable.aval for variable in equation.invars)
    return {"scan": u.size * (SCAN_STATE * A.shape[1] + SCAN_SKIP * bool(skip_and_bias))}, u.size


def _cross_selective_scan(equation):
    u, _, weight, A, _, _, *skip_and_bias = (variable.aval for variable in equation.invars)
    scanned, rank = u.size * weight.shape[0], weight.shape[-1]
    return {"matmul": scanned * rank, "scan": scanned * (SCAN_STATE * A.shape[2] + SCAN_SKIP * bool(skip_and_bias))}, 2 * scanned


def _products(out):
    """Multiply-adds of one product for each element: four of a complex one."""
    return out.size * (4 if jnp.issubdtype(out.dtype, jnp.complexfloating) else 1)


def _linear_scan(equation):
    out = equation.outvars[0].aval
    return {"scan": _products(out)}, out.size


def _arithmetic(equation):
    return {"arithmetic": _products(equation.outvars[0].aval)}, 0


ARITHMETIC = ("add", "sub", "mul", "div", "max", "min", "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "sin", "cos", "sqrt", "rsqrt", "pow",
              "integer_pow", "select_n", "reduce_sum")
PRIMITIVES = {"dot_general": _matmul, "conv_general_dilated": _conv, "fft": _fft}
FUNCTIONS = {"selective_scan": _selective_scan, "cross_selective_scan": _cross_selective_scan, "linear_scan": _linear_scan, "standardize": _norm,
             "causal_conv": _causal_conv}
