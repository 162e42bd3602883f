"""Component-wise gradients: attacks use the blocked model, images are classified by the unblocked one."""
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import analysis, attacks, create_model
from vmamba_jax.analysis.component_gradients import _places
from vmamba_jax.models import Classifier

KEY = jax.random.key(2)
N = 40
ATTACK = attacks.pgd(0.12, 2)


class Toy(nn.Module):
    """Two stages of one and two blocks, x + tanh(B(x)) * C(x): compiles fast, with the fields of a state space model."""
    stop_gradients: tuple = ()
    stop_blocks: tuple | None = None
    depths: tuple = (1, 2)

    @nn.compact
    def __call__(self, images, train=False):
        chosen = [(0, 0), (1, 0), (1, 1)] if self.stop_blocks is None else []
        for entry in self.stop_blocks or ():
            chosen += [(entry, i) for i in range(self.depths[entry])] if isinstance(entry, int) else [entry]
        x = images.reshape(len(images), -1)
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                cut = self.stop_gradients if (stage, block) in chosen else ()
                parts = [nn.Dense(12, name=f"{name}{stage}{block}")(x) for name in "BC"]
                B, C = (jax.lax.stop_gradient(part) if name in cut else part for name, part in zip("BC", parts, strict=True))
                x = x + jnp.tanh(3 * B) * C
        return nn.Dense(4, name="head")(x)


@functools.cache
def setting():
    """(classifier, variables, images, labels): the labels are its predictions, except for the last five."""
    classifier = Classifier(Toy(), mean=0.5, std=0.3)
    images = np.asarray(jax.random.uniform(jax.random.key(1), (N, 2, 2, 3)))
    variables = classifier.init(jax.random.key(0), (2, 2, 3))
    labels = np.array(jax.jit(classifier)(variables, images).argmax(1))
    labels[-5:] = (labels[-5:] + 1) % 4
    return classifier, variables, images, labels


@functools.cache
def by_hand(**fields):
    classifier, variables, images, labels = setting()
    through = Classifier(Toy(**fields), mean=0.5, std=0.3)
    adversarial = jax.jit(lambda x: ATTACK(lambda x: through(variables, x), x, labels, KEY))(images)
    right = lambda x: np.asarray(classifier(variables, x).argmax(1)) == labels
    return right(images) & right(adversarial)


@pytest.mark.parametrize(("blocks", "places"), [(None, [None]), (((0, (1, 1)),), [(0, (1, 1))])], ids=str)
@pytest.mark.often(1)
def test_as_by_hand(blocks, places):
    classifier, variables, images, labels = setting()
    reports = []
    result = analysis.component_gradients(classifier, variables, (images, labels), ATTACK, key=KEY, components=("B", "C"), blocks=blocks,
                                            batch_size=16, progress=lambda *report: reports.append(report[:2]))
    full, rows = by_hand(), result["components"]
    assert result["accuracy"] == 35 / N and result["robust_accuracy"] == full.mean() and result["attack"] == ATTACK.settings
    wanted = [(name, place) for name in "BC" for place in places]
    assert [[row["component"], row["blocks"]] for row in rows] == json.loads(json.dumps(wanted))
    for row, (name, place) in zip(rows, wanted, strict=True):
        cut = by_hand(stop_gradients=(name,), stop_blocks=place)
        assert row["robust_accuracy"] == cut.mean() and (row["gained"], row["lost"]) == ((cut & ~full).sum(), (full & ~cut).sum())
        np.testing.assert_allclose(row["difference"], cut.mean() - full.mean(), atol=1e-12)
        low, high = row["difference_interval"]
        assert low < row["difference"] < high
    if blocks is None:
        assert rows[0]["gained"] > 3  # blocking weakens this attack
    assert json.loads(json.dumps(result)) == result
    assert reports[-1] == (N * (1 + len(rows)),) * 2 and reports == sorted(reports)


def test_places():
    assert _places(Toy(), "stages") == [(0,), (1,)] and _places(Toy(), "blocks") == [((0, 0),), ((1, 0),), ((1, 1),)]


def test_vmamba():
    """On the real model: x cut in every block leaves the residual path alone, another gradient than the whole."""
    model = create_model("vmamba_tiny", num_classes=4, dims=(4,), depths=(1,), mlp_ratio=0.0, conv_size=0, patch_embed="v1")
    classifier = Classifier(model, mean=0.5, std=0.3)
    images = np.asarray(jax.random.uniform(jax.random.key(1), (32, 8, 8, 3)))
    weights = jax.eval_shape(lambda: classifier.init(KEY, (8, 8, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), weights)
    variables["params"]["layers_0"]["blocks_0"]["op"]["out_proj"]["kernel"] *= 10  # the mixer matters
    logits = jax.jit(classifier)(variables, images)
    variables["params"]["head"]["bias"] -= logits.mean(0)  # or all images would be of one class
    labels = np.asarray((logits - logits.mean(0)).argmax(1))
    result = analysis.component_gradients(classifier, variables, (images, labels), attacks.fgsm(0.02), key=KEY, components=("x",),
                                          blocks="stages")
    row, = result["components"]
    assert result["accuracy"] == 1 and row["blocks"] == [0] and row["gained"] + row["lost"] > 0, result


@pytest.mark.parametrize(("change", "text"), [
    ({"components": ("A",)}, "components=('A',): expected"), ({"components": "B"}, "components='B': expected"), ({"blocks": "layers"}, "blocks='layers'"),
    ({"blocks": ((2,),)}, "blocks=(2,)"), ({"model": create_model("vit_tiny", image_size=32)}, "model ViT has no stop_gradients"),
    ({"attack": attacks.pgd(0.1, 1, targeted=True)}, "untargeted"),
])
def test_refusals(change, text):
    classifier, variables, images, labels = setting()
    options = {"attack": ATTACK, "model": classifier} | change
    with pytest.raises(ValueError, match="expected") as raised:
        analysis.component_gradients(options.pop("model"), variables, (images, labels), options.pop("attack"), key=KEY, **options)
    assert text in str(raised.value)
