"""Scores of maps and vectors against the released program's arrays; the locator on a net whose states are known."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import probed_net
from vmamba_jax import analysis
from vmamba_jax.analysis import state_correlation as found_by
from vmamba_jax.core import state_correlation as sc


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    images, labels = rng.random((23, 8, 8, 1)).astype(np.float32), np.arange(23) % 3
    classifier = probed_net.classifier()
    return classifier, classifier.init(jax.random.key(1), (8, 8, 1)), images, labels.astype(np.int32)


def test_external_score_and_overlap(golden):
    arrays = golden("mender_static")
    masks = arrays["ext/foreground"][:, 0] > 0
    for name in ("e_norm", "e_norm_u8"):
        for alpha in (0.3, 0.5, 0.7):
            ours = found_by.overlap(arrays[f"ext/score/{name}"][:, 0] > alpha, masks)
            np.testing.assert_allclose(ours, arrays[f"ext/score/iou_{'u8_' if name.endswith('u8') else ''}{alpha}"], rtol=1e-9)
    keep, drop = arrays["ext/score/p_keep"], arrays["ext/score/p_drop"]
    ours = found_by.external_score(keep, drop, arrays["ext/score/iou_0.5"])
    np.testing.assert_allclose(ours["score"], arrays["ext/score/ECS_dataset_0.5"], rtol=1e-9)
    np.testing.assert_allclose(ours["per_sample"], arrays["ext/score/ECS_per_sample_0.5_ours"].mean(), rtol=1e-9)


@pytest.mark.parametrize("beta", [0.2, 0.3, 0.5])
def test_internal_score(golden, beta):
    arrays = golden("mender_static")
    vectors = arrays["int/vec"]  # (2 layers, 3 classes, samples, D)
    for layer in range(2):
        ours = [found_by.internal_score(vectors[layer, k], beta) for k in range(3)]
        released = arrays[f"int/score_den_hom_ics_{beta}"][layer]
        np.testing.assert_allclose([[each[name] for name in ("density", "homogeneity", "score")] for each in ours], released, rtol=1e-9)
        np.testing.assert_allclose(np.mean([round(float(each["score"]), 2) for each in ours]), arrays[f"int/ICS_released_rounded_{beta}"][layer])
        np.testing.assert_allclose(np.mean([each["product"] for each in ours]), arrays[f"int/ICS_product_poster_{beta}"][layer], rtol=1e-9)


def test_extremes():
    probabilities, labels = np.array([0.9, 0.1, 0.5, 0.5, 0.2, 0.8]), np.array([0, 0, 0, 1, 1, 1])
    ours = found_by.extremes(probabilities, labels, 1)
    assert ours["simple"].tolist() == [0, 5] and ours["difficult"].tolist() == [1, 4]
    with pytest.raises(ValueError, match="per_class=2: expected at most 1, half of the 3 samples of class 0"):
        found_by.extremes(probabilities, labels, 2)


def test_measure_equals_the_pieces(net):
    """Over several padded batches on eight devices: maps, regions, vectors and the two masked passes of each image."""
    classifier, variables, images, labels = net
    which = np.array([1, 2, 3, 5, 8, 13, 21, 22, 4, 7, 11])
    ours = found_by.measure(classifier, variables, (images, labels), which, states=("s",), batch_size=8)
    which = np.sort(which)
    np.testing.assert_array_equal(ours.positions, which)
    s, g = (x.reshape(-1, 1, 16, 5) for x in probed_net.state_and_gradient(variables["params"], images[which], labels[which]))
    place = ("s", "")
    tokens = sc.external_tokens(s, g)
    np.testing.assert_allclose(ours.tokens[place], tokens.reshape(-1, 4, 4), atol=1e-6)
    np.testing.assert_allclose(ours.vectors[place], sc.internal_vectors(s, g), atol=1e-6)
    regions = np.asarray(sc.normalized(sc.external_maps(tokens, (4, 4), (8, 8)))) > 0.5
    np.testing.assert_array_equal(ours.regions[place], regions)
    chance = lambda x: np.asarray(jax.nn.softmax(classifier(variables, jnp.asarray(x))))[np.arange(len(which)), labels[which]]
    np.testing.assert_allclose(ours.probabilities, chance(images[which]), atol=1e-6)
    np.testing.assert_allclose(ours.keep[place], chance(np.where(regions[..., None], images[which], 0.5)), atol=1e-6)
    np.testing.assert_allclose(ours.drop[place], chance(np.where(regions[..., None], 0.5, images[which])), atol=1e-6)


def test_locate_ranking_and_templates(net):
    classifier, variables, images, labels = net
    masks = np.zeros((23, 8, 8), bool)
    masks[:, :4] = True
    options = {"states": ("s",), "batch_size": 8}
    report = analysis.locate(classifier, variables, (images, labels), masks=masks, per_class=2, **options)
    probabilities, _ = found_by.true_probabilities(classifier, variables, (images, labels), batch_size=8)
    groups = found_by.extremes(probabilities, labels, 2)
    assert {name: x.tolist() for name, x in groups.items()} == report["groups"]
    row, = report["rows"]
    found = found_by.measure(classifier, variables, (images, labels), groups["difficult"], **options)
    place = ("s", "")
    expected = found_by.external_score(found.keep[place], found.drop[place], found_by.overlap(found.regions[place], masks[found.positions]))
    assert row["difficult"]["external"] == pytest.approx({**expected, "coverage": found.regions[place].mean()})
    by_class = [float(found_by.internal_score(found.vectors[place][found.labels == k])["score"][0]) for k in range(3)]
    assert row["difficult"]["internal"]["by_class"] == pytest.approx(by_class)
    flaw, = analysis.ranking(report, "external")
    assert flaw["flaw"] == pytest.approx(np.log(row["simple"]["external"]["score"] / row["difficult"]["external"]["score"]))
    flaw, = analysis.ranking(report, "internal")
    assert flaw["flaw"] == pytest.approx(row["simple"]["internal"]["score"] - row["difficult"]["internal"]["score"])
    masks = analysis.templates(classifier, variables, (images, labels), states=("s",), blocks=None, per_class=2, batch_size=8)[place]
    simple = found_by.measure(classifier, variables, (images, labels), groups["simple"], **options)
    np.testing.assert_array_equal(masks[1], sc.template(jnp.asarray(simple.vectors[place][simple.labels == 1])))


def test_ranking_of_the_deepest_blocks():
    row = lambda state, block, a, b: {"state": state, "block": block, "simple": {"external": {"score": a}}, "difficult": {"external": {"score": b}}}
    report = {"groups": {"simple": [], "difficult": []}, "rows": [row("c", 0, 8.0, 1.0), row("c", 1, 2.0, 1.0), row("s", 1, 4.0, 1.0)]}
    assert [(each["state"], each["block"]) for each in analysis.ranking(report)] == [("c", 0), ("s", 1), ("c", 1)]
    assert [(each["state"], each["block"]) for each in analysis.ranking(report, depth=0.5)] == [("s", 1), ("c", 1)]


def test_errors(net):
    classifier, variables, images, labels = net
    run = lambda **options: analysis.locate(classifier, variables, (images, labels), per_class=2, states=("s",), batch_size=8, **options)
    with pytest.raises(ValueError, match=r"masks of shape \(23, 8\) and bool: expected \(n, H, W\) bool"):
        run(masks=np.zeros((23, 8), bool))
    with pytest.raises(ValueError, match=r"groups=\['a'\]: expected two"):
        run(groups={"a": np.arange(2)})
    assert all(row["simple"]["external"] is None for row in run()["rows"])
    with pytest.raises(ValueError, match="alpha=1.0: expected a finite number >= 0 and < 1"):
        run(alpha=1.0)
