"""Counted multiply-adds: rules on small programs, and the figures that papers and repositories publish."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import pallas_kernels
import vmamba_jax
from tests.helpers import doc_examples
from vmamba_jax import models
from vmamba_jax.models.layers.common import DepthwiseConv, LayerNorm
from vmamba_jax.models.program_cost import Cost, cost, count

# GFLOPs at 224 pixels. VMamba: its repository's exact figures. Others: their papers' two or three digits; DeiT-Ti's 1.3 is 1.26 rounded up, so the
# tolerance is 1 % or half of the last digit. Vim's authors publish none. LocalMamba (arXiv 2403.09338) has 1.5 for Vim-Ti, in a convention that it
# does not state: ours has 1.29 in products and convolutions and 0.26 for the scan of each of two directions.
PUBLISHED = {
    "vmamba_tiny": "4.90561", "vmamba_small": "8.71577", "vmamba_base": "15.35894", "vmamba_tiny_s2l5": "4.85774", "vmamba_small_s1l20": "8.61221",
    "vmamba_base_s1l20": "15.22086", "vmamba_tiny_v0": "5.62690", "vmamba_small_v0": "11.23152", "vmamba_base_v0": "18.02012",
    "deit_tiny": "1.3", "deit_small": "4.6", "deit_base": "17.6", "vit_tiny": "1.3", "vit_small": "4.6", "vit_base": "17.6", "vit_large": "61.6", "vit_large_patch14": "81.1",
    "vit_huge": "167.4",
    "swin_tiny": "4.5", "swin_small": "8.7", "swin_base": "15.4", "convnext_tiny": "4.5", "convnext_small": "8.7", "convnext_base": "15.4",
    "mambaout_femto": "1.2", "mambaout_kobe": "1.5", "mambaout_tiny": "4.5", "mambaout_small": "9.0", "mambaout_base": "15.8",
    "mambaout_base_plus_rw": "19.2", "mambaout_base_tall_rw": "16.1", "spatialmamba_tiny": "4.5", "spatialmamba_small": "7.1", "spatialmamba_base": "15.8", "resnet18": "1.8", "resnet50": "4.1", "efficientnet_lite0": "0.407"}
FAST = ("vmamba_tiny_s2l5", "deit_small", "swin_tiny", "convnext_tiny")
# of VMamba's paper, without fine-tuning: {model: GFLOPs at each size}
SIZES = (288, 384, 512, 640, 768)
BY_SIZE = {"vmamba_tiny": (8.11, 14.41, 25.63, 40.04, 57.66), "vmamba_tiny_s2l5": (8.03, 14.27, 25.38, 39.65, 57.09),
           "vmamba_tiny_v0": (9.30, 16.53, 29.39, 45.93, 66.14)}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in PUBLISHED])
def test_published(name):
    text, found = PUBLISHED[name], cost(name)
    half_a_digit = 0.5 * 10.0**-len(text.partition(".")[2])
    assert abs(found.gflops - float(text)) <= max(0.01 * float(text), half_a_digit)
    if name.startswith("vmamba"):
        assert found.gflops == pytest.approx(float(text), rel=1e-4)
    assert (found.parameters, found.flops) == (models.entry(name).parameters, models.entry(name).flops)


@pytest.mark.slow
@pytest.mark.parametrize("name, published", {"mambavision_tiny": 4.4, "mambavision_tiny2": 5.1, "mambavision_small": 7.5, "mambavision_base": 15.0,
                                             "mambavision_large": 34.9, "mambavision_large2": 37.5}.items())
def test_published_without_the_products_of_tokens(name, published):
    """MambaVision's figures leave out the attention's two products, the scans and the norms; rounded, or cut off."""
    model, found = vmamba_jax.create_model(name), cost(name)
    products = sum(2 * tokens**2 * model.dims[i] * (model.depths[i] // 2) for i, tokens in ((2, 196), (3, 49)))
    counted = (found.operations["conv"] + found.operations["matmul"] - products) / 1e9
    assert published - 0.05 <= counted < published + 0.1


@pytest.mark.slow
def test_every_entry_of_the_catalog():
    for name in set(vmamba_jax.list_models()) - set(PUBLISHED):
        found, entry = vmamba_jax.cost(name), models.entry(name)
        assert (found.parameters, found.flops) == (entry.parameters, entry.flops), name


@pytest.mark.slow
@pytest.mark.parametrize("name,size,gflops", [(name, size, value) for name, row in BY_SIZE.items() for size, value in zip(SIZES, row, strict=True)])
def test_published_sizes(name, size, gflops):
    assert cost(name, size).gflops == pytest.approx(gflops, rel=0.01)


def counted(fn, *shapes):
    return count(jax.make_jaxpr(fn)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def test_products_and_convolutions():
    assert counted(lambda x, y: jnp.tanh(x @ y) + 1, (2, 3, 5), (2, 5, 7)) == ({"matmul": 2 * 3 * 5 * 7}, 2 * 3 * 7)
    grouped = lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert counted(grouped, (1, 9, 9, 4), (3, 3, 2, 6)) == ({"conv": 4 * 4 * 6 * 3 * 3 * 2}, 4 * 4 * 6)


def test_control_flow():
    product = lambda x: x @ x
    assert counted(lambda x: jax.lax.fori_loop(0, 3, lambda i, x: product(x), x), (4, 4))[0] == {"matmul": 3 * 64}
    assert counted(lambda x: jax.lax.cond(x[0, 0] > 0, product, lambda x: x, x), (4, 4))[0] == {"matmul": 64}
    assert counted(lambda x: jax.checkpoint(jax.jit(product))(x), (4, 4)) == ({"matmul": 64}, 16)
    assert counted(lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x + 1, x), (4, 4)) == ({}, 0)
    with pytest.raises(ValueError, match="fixed number of steps, got a while loop around matmul"):
        counted(lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, product, x), (4, 4))


def test_scans():
    """9 multiply-adds for each state and 1 for the skip; both forms of a cross scan count the same."""
    one = lambda u, A, B, D: pallas_kernels.selective_scan(u, u, A, B, B, D)
    assert counted(one, (2, 7, 6), (6, 4), (2, 7, 3, 4), (6,)) == ({"scan": 2 * 7 * 6 * (9 * 4 + 1)}, 2 * 7 * 6)
    assert counted(lambda u, A, B: pallas_kernels.selective_scan(u, u, A, B, B), (2, 7, 6), (6, 4), (2, 7, 3, 4))[0] == {"scan": 2 * 7 * 6 * 36}
    assert counted(lambda a, b: pallas_kernels.linear_scan(a, b), (1, 5, 3), (1, 5, 3)) == ({"scan": 15}, 15)
    size, fields = (6, 5), dict(d_state=3, ssm_ratio=2.0, dt_rank=2)
    cross, routes = (models.SS2D(8, scan_pattern=pattern, **fields) for pattern in ("cross", tuple(range(30))))
    expected = {"matmul": 30 * (8 * 16 + 4 * 16 * (2 + 6) + 4 * 2 * 16 + 16 * 8), "conv": 30 * 9 * 16, "scan": 4 * 30 * 16 * 28, "norm": 5 * 30 * 16}
    for mixer in (cross, routes):
        variables = jax.eval_shape(mixer.init, jax.random.key(0), jnp.zeros((1, *size, 8)))
        found, activations = counted(lambda x, mixer=mixer, variables=variables: mixer.apply(jax.tree.map(lambda v: jnp.zeros(v.shape), variables), x),
                                     (1, *size, 8))
        assert found == expected and activations == 30 * (16 + 16 + 4 * 8 + 4 * 16 + 4 * 16 + 8)


def test_transforms():
    assert counted(lambda x: jnp.fft.rfft(x), (3, 16))[0] == {"fft": round(1.25 * 3 * 16 * 4)}
    assert counted(lambda x: jnp.fft.fft(x), (3, 16))[0] == {"fft": round(2.5 * 3 * 16 * 4)}


class Net(nn.Module):
    in_channels: int = 2

    @nn.compact
    def __call__(self, x):
        x = LayerNorm()(DepthwiseConv(3)(x))
        return nn.Dense(5)(x.mean((1, 2)))


def test_module():
    """A module of one's own; a depth-wise convolution counts the same on a CPU, where it is shifted multiplies."""
    found = cost(Net(), (6, 4))
    assert found == Cost(parameters=18 + 2 + 4 + 15, flops=48 * 9 + 48 * 5 + 10, activations=48 + 5, operations={"conv": 48 * 9, "norm": 48 * 5, "matmul": 10})
    assert cost(models.Classifier(Net(), (0.5,), (0.5,)), (6, 4)) == found and found.gflops == pytest.approx(682e-9)


def test_vim_counts_its_causal_convolution():
    found = cost(vmamba_jax.create_model("vim_tiny", depth=1, embed_dim=16, num_classes=3), 32)
    tokens = 5
    assert found.operations["conv"] == 4 * 16 * 16 * 16 * 3 + 2 * tokens * 32 * 4 and found.operations["scan"] == 2 * tokens * 32 * (9 * 16 + 1)


@pytest.mark.parametrize("model,size,error,words", [
    (Net(), None, ValueError, "image_size=None: expected the side"), (Net(), 0, ValueError, "image_size=0: "), (Net(), (4, 4, 2), ValueError, "image_size="),
    (Net(), True, ValueError, "image_size=True"), (print, 4, TypeError, "expected a catalog name, a Linen module or a Classifier"),
    ("vmamba_huge", None, KeyError, "vmamba_huge")])
def test_errors(model, size, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        cost(model, size)


@pytest.mark.slow
def test_documented_figures():
    """The block of docs/models.md runs, and its figures are those of the model."""
    code = doc_examples.blocks("models.md")[-1]
    found = doc_examples.run(code, "models.md")["found"]
    assert f"{found.parameters:,}, {found.gflops:.3f} and {found.activations:,}" in code
