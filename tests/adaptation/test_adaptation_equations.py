"""EATA, SAR, SHOT and LAME against plain float64 statements of their papers' equations, image by image; streams and attackers."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import adaptation, evaluation
from vmamba_jax.adaptation.stream import corrupted

CLASSES, WIDTH, SIDE = 4, 6, 3


class Net(nn.Module):
    """A linear layer, batch norm, ReLU and the head."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(WIDTH, name="first", param_dtype=x.dtype)(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm", param_dtype=x.dtype)(x))
        return nn.Dense(CLASSES, name="head", param_dtype=x.dtype)(x)


@functools.cache
def arrays():
    """(variables, two batches of 12 images), float64."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape)
    params = {"first": {"kernel": draw(SIDE**2, WIDTH), "bias": draw(WIDTH)}, "norm": {"scale": 1 + 0.3 * draw(WIDTH), "bias": 0.6 + 0.3 * draw(WIDTH)},
              "head": {"kernel": 1.2 * draw(WIDTH, CLASSES), "bias": 0.3 * draw(CLASSES)}}
    return {"params": params, "batch_stats": {"norm": {"mean": draw(WIDTH), "var": 1 + rng.uniform(size=WIDTH)}}}, rng.uniform(size=(2, 12, SIDE, SIDE, 1))


def features(params, x):
    """(features, logits) under the batch's statistics."""
    z = x.reshape(len(x), -1) @ params["first"]["kernel"] + params["first"]["bias"]
    h = (z - z.mean(0)) / jnp.sqrt(((z - z.mean(0))**2).mean(0) + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
    h = jnp.where(h > 0, h, 0)
    return h, h @ params["head"]["kernel"] + params["head"]["bias"]


def entropy(z):
    """Entropy of one image's logits."""
    p = jnp.exp(z) / jnp.exp(z).sum()
    return -sum(p[k] * jnp.log(p[k]) for k in range(CLASSES))


class Descent:
    """SGD with momentum of some leaves of the parameters."""

    def __init__(self, params, chosen, rate, momentum):
        self.params, self.chosen, self.rate, self.momentum = params, chosen, rate, momentum
        self.velocity = dict.fromkeys(chosen, 0.0)

    def moved(self, values):
        return {name: {leaf: values.get((name, leaf), x) for leaf, x in layer.items()} for name, layer in self.params.items()}

    def values(self):
        return {(a, b): jnp.asarray(self.params[a][b]) for a, b in self.chosen}

    def gradient(self, loss, at=None):
        return jax.jit(jax.grad(lambda values: loss(self.moved(values))))(self.values() if at is None else at)

    def apply(self, gradient):
        self.velocity = {path: self.momentum * self.velocity[path] + gradient[path] for path in self.chosen}
        self.params = self.moved({path: x - self.rate * self.velocity[path] for path, x in self.values().items()})


NORM = (("norm", "scale"), ("norm", "bias"))


def compare(method, plain, batches, init=None):
    """Two steps of both; returns the states."""
    state, step, states = (init or method.init)(jax.tree.map(jnp.asarray, arrays()[0])), jax.jit(method.step), []
    for x in batches:
        state, logits = step(state, x)
        params, expected = plain(x)
        np.testing.assert_allclose(logits, expected, atol=1e-10)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-10), state.variables["params"], params)
        states.append(state)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("anchored", [False, True], ids=["eta", "eata"])
def test_eata(x64, anchored):
    variables, batches = arrays()
    method = adaptation.eata(Net(), 0.05, threshold=0.55, margin=0.85, fisher_weight=3.0)
    descent, memory, selected = Descent(variables["params"], NORM, 0.05, 0.9), {"mean": None}, []
    fisher = jax.jit(method.fisher)(jax.tree.map(jnp.asarray, variables), batches[1])
    own = features(variables["params"], batches[1])[1].argmax(-1)
    each = jax.jit(lambda i: descent.gradient(lambda p: -jnp.log(jax.nn.softmax(features(p, batches[1])[1][i])[own[i]])))
    gradients = [each(i) for i in range(12)]  # equation 8: image by image
    for path in NORM:
        np.testing.assert_allclose(fisher[path], sum(g[path]**2 for g in gradients) / 12, atol=1e-12)

    def plain(x):
        limit, z = 0.55 * np.log(CLASSES), features(descent.params, x)[1]
        p, chosen = np.asarray(jax.nn.softmax(z)), []
        for i in range(len(x)):
            mean = memory["mean"]
            cosine = 0 if mean is None else p[i] @ mean / np.linalg.norm(p[i]) / np.linalg.norm(mean)
            if entropy(z[i]) < limit and cosine < 0.85:
                chosen.append(i)
        weights = {i: np.exp(limit - float(entropy(z[i]))) for i in chosen}

        def loss(params):
            z = features(params, x)[1]
            drift = sum((fisher[a, b] * (params[a][b] - variables["params"][a][b])**2).sum() for a, b in NORM)
            return sum(weights[i] * entropy(z[i]) for i in chosen) / len(chosen) + (3.0 * drift if anchored else 0)
        descent.apply(descent.gradient(loss))
        mean = p[chosen].mean(0)
        memory["mean"] = mean if memory["mean"] is None else 0.9 * memory["mean"] + 0.1 * mean
        selected.append(len(chosen))
        return descent.params, features(descent.params, x)[1]

    states = compare(method, plain, batches, lambda v: method.init(v, fisher if anchored else None))
    assert all(0 < n < 12 for n in selected)
    np.testing.assert_allclose(states[1].memory["mean"], memory["mean"], atol=1e-10)
    same, _ = adaptation.eata(Net(), threshold=1e-6).step(method.init(jax.tree.map(jnp.asarray, variables)), batches[0])
    assert not same.memory["begun"] and (same.variables["params"]["norm"]["scale"] == variables["params"]["norm"]["scale"]).all()


@pytest.mark.parametrize("recovery", [0.0, 10.0])
def test_sar(x64, recovery):
    variables, batches = arrays()
    descent, memory, selected = Descent(variables["params"], NORM, 0.05, 0.9), {"mean": None}, []

    def plain(x):
        limit = 0.55 * np.log(CLASSES)
        z = features(descent.params, x)[1]
        first = [i for i in range(len(x)) if entropy(z[i]) < limit]
        g = descent.gradient(lambda params: sum(entropy(features(params, x)[1][i]) for i in first) / len(first))
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        sharp = {path: x + 0.3 * g[path] / norm for path, x in descent.values().items()}
        z = features(descent.moved(sharp), x)[1]
        second = [i for i in first if entropy(z[i]) < limit]
        descent.apply(descent.gradient(lambda params: sum(entropy(features(params, x)[1][i]) for i in second) / len(second), sharp))
        value = float(sum(entropy(z[i]) for i in first) / len(first))
        memory["mean"] = value if memory["mean"] is None else 0.9 * memory["mean"] + 0.1 * value
        if memory["mean"] < recovery:
            descent.params, descent.velocity = variables["params"], dict.fromkeys(NORM, 0.0)
        selected.append((len(first), len(second)))
        return descent.params, features(descent.params, x)[1]

    states = compare(adaptation.sar(Net(), 0.05, threshold=0.55, rho=0.3, recovery=recovery), plain, batches)
    np.testing.assert_allclose(states[1].memory["mean"], memory["mean"], atol=1e-10)
    assert all(0 < b <= a < 12 for a, b in selected) and any(b < a for a, b in selected)


def test_shot(x64):
    variables, batches = arrays()
    chosen = (("first", "kernel"), ("first", "bias"), *NORM)
    descent, found = Descent(variables["params"], chosen, 0.01, 0.9), []

    def nearest(g, weights):
        """Classes by cosine to the centroids of equations 4 and 6."""
        centroids = {k: sum(w * x for w, x in zip(weights[:, k], g, strict=True)) / weights[:, k].sum() for k in range(CLASSES) if weights[:, k].sum()}
        cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return [max(centroids, key=lambda k: cosine(x, centroids[k])) for x in g]

    def plain(x):
        g, z = (np.asarray(a) for a in features(descent.params, x))
        first = nearest(g, np.asarray(jax.nn.softmax(z)))
        labels = nearest(g, np.eye(CLASSES)[first])
        found.append((first, labels, z.argmax(-1).tolist()))

        def loss(params):
            z = features(params, x)[1]
            p = jax.nn.softmax(z)
            mean = p.mean(0)
            own = -sum(jnp.log(p[i, k]) for i, k in enumerate(labels)) / len(x)
            return sum(map(entropy, z)) / len(x) + (mean * jnp.log(mean)).sum() + 0.3 * own
        descent.apply(descent.gradient(loss))
        return descent.params, features(descent.params, x)[1]

    compare(adaptation.shot(Net(), 0.01), plain, batches)
    assert any(labels != own for _, labels, own in found)


def test_lame_and_none(x64):
    variables, batches = arrays()
    variables, x = jax.tree.map(jnp.asarray, variables), batches[0]
    logits = Net().apply(variables, x)
    p = np.asarray(jax.nn.softmax(logits))
    state, kept = adaptation.none(Net()).step(adaptation.none(Net()).init(variables), x)
    np.testing.assert_allclose(kept, logits, atol=1e-12)
    of_batch = adaptation.none(Net(), statistics="batch").step(state, x)[1]
    np.testing.assert_allclose(of_batch, features(variables["params"], x)[1], atol=1e-10)
    method = adaptation.lame(Net(), neighbors=3, steps=60)
    state, log_z = jax.jit(method.step)(method.init(variables), x)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state.variables, variables))
    z = x.reshape(12, -1) @ variables["params"]["first"]["kernel"] + variables["params"]["first"]["bias"]
    stats = variables["batch_stats"]["norm"]
    g = np.maximum((z - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * variables["params"]["norm"]["scale"] + variables["params"]["norm"]["bias"], 0)
    w = np.zeros((12, 12))
    for i in range(12):
        cosine = [g[i] @ g[j] / np.linalg.norm(g[i]) / np.linalg.norm(g[j]) if i != j else -2 for j in range(12)]
        w[i, np.argsort(cosine)[-3:]] = 1
    w, y = (w + w.T) / 2, p.copy()
    for _ in range(60):
        new = np.zeros_like(y)
        for i in range(12):
            new[i] = p[i] * np.exp(sum(w[i, j] * y[j] for j in range(12)))
        y = new / new.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_z), y, atol=1e-10)
    energy = lambda y: (y * np.log(y / p + 1e-300)).sum() - (w * (y @ y.T)).sum() / 2
    assert energy(y) < energy(p) - 0.1 and np.abs(y - p).max() > 0.05


class Counting(adaptation.Method):
    """Predicts the number of batches since the start, modulo 4."""

    def init(self, variables):
        return jnp.zeros((), int)

    def step(self, state, images, key=None):
        return state + 1, jax.nn.one_hot(jnp.full(len(images), state % CLASSES), CLASSES) + 0 * images.mean((1, 2, 3))[:, None]


class Broken(Counting):
    """Logits that are not finite."""

    def step(self, state, images, key=None):
        state, logits = super().step(state, images)
        return state, logits * jnp.nan


def test_stream_settings():
    images, labels = np.random.default_rng(0).uniform(size=(10, 8, 8, 1)).astype(np.float32), np.arange(10) % 2
    run = functools.partial(adaptation.stream_accuracy, Counting(Net()), None, (images, labels), key=jax.random.key(0), corruptions=("brightness",),
                            severities=(1, 5, 3), batch_size=4)
    order = np.asarray(jax.random.permutation(jax.random.split(jax.random.key(0), 3)[0], 10))
    batch = np.empty(10, int)
    batch[order] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    for setting, begun in (("continual", (0, 3, 6)), ("reset", (0, 0, 0))):
        rows = run(setting=setting)
        assert [row["accuracy"] for row in rows] == [((batch + start) % CLASSES == labels).mean() for start in begun]
        assert [(row["corruption"], row["severity"], row["examples"]) for row in rows] == [("brightness", s, 10) for s in (1, 5, 3)]
    assert {row["accuracy"] for row in run(setting="episodic")} == {0.5}
    broken = adaptation.stream_accuracy(Broken(Net()), None, (images, 0 * labels), key=jax.random.key(0), corruptions=("brightness",), batch_size=4)
    assert broken[0]["accuracy"] == 0  # not that of class 0, which the argmax of NaN is
    with pytest.raises(ValueError, match="setting='often'"):
        run(setting="often")


def test_gray_images_are_corrupted_as_gray_images_of_three_channels():
    x, keys = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1)), jax.random.split(jax.random.key(1), 2)
    expected = evaluation.corruptions.corrupt("brightness", 3, jnp.repeat(x, 3, -1), keys)
    np.testing.assert_array_equal(corrupted("brightness", 3, x, keys), expected[..., :1])
    with pytest.raises(ValueError, match="expected one channel or three"):
        corrupted("brightness", 3, x.repeat(2, -1), keys)


def test_attackers_who_know_the_method():
    variables, batches = arrays()
    variables, x = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), variables), jnp.asarray(batches[0], jnp.float32)
    method = adaptation.tent(Net(), 0.5)
    state = method.init(variables)
    logits_fn = adaptation.adapted_logits(method, state)
    labels = jax.jit(logits_fn)(x).argmax(-1)
    losses = jax.jit(lambda images: -jnp.take_along_axis(jax.nn.log_softmax(logits_fn(images)), labels[:, None], 1)[:, 0])
    loss = lambda images, part=slice(None): losses(images)[part].mean()
    changed = jax.jit(lambda x: adaptation.poison(method, state, x, labels, 3, eps=0.1, steps=5))(x)
    assert (changed[3:] == x[3:]).all() and 0.05 < jnp.abs(changed - x).max() <= 0.1 + 1e-6 and changed.min() >= 0 and changed.max() <= 1
    assert loss(changed, slice(3, None)) > loss(x, slice(3, None)) + 0.01
    g = jax.jit(jax.grad(loss))(x)  # through the update: the loss of all images is that of the adapted model
    step = 1e-3 * g / jnp.linalg.norm(g)
    np.testing.assert_allclose((loss(x + step) - loss(x - step)) / 2e-3, jnp.linalg.norm(g), rtol=0.05)
    dead = jax.tree.map(lambda x: x, variables)
    dead["params"]["norm"]["bias"] = dead["params"]["norm"]["bias"].at[0].set(-100.0)  # a unit without a gradient: 0 under Adam's root
    through = adaptation.adapted_logits(method, method.init(dead))
    g = jax.jit(jax.grad(lambda x: jax.nn.log_softmax(through(x))[:, 0].sum()))(x)
    assert jnp.isfinite(g).all() and jnp.abs(g).max() > 0
    for count in (0, 12):
        with pytest.raises(ValueError, match=f"count={count}: expected"):
            adaptation.poison(method, state, x, labels, count, eps=0.1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: adaptation.eata(Net(), threshold=0), "threshold=0"), (lambda: adaptation.eata(Net(), margin=-1), "margin=-1"),
    (lambda: adaptation.none(Net(), statistics="all"), "statistics='all': expected one of 'running', 'batch'"), (lambda: adaptation.sar(Net(), rho=-1), "rho=-1"), (lambda: adaptation.sar(Net(), momentum=1), "momentum=1"),
    (lambda: adaptation.shot(Net(), beta=-1), "beta=-1"), (lambda: adaptation.lame(Net(), neighbors=0), "neighbors=0"),
    (lambda: adaptation.shot(Net(), head="tail").init(arrays()[0]), "head='tail': expected the last linear layer among first, norm, head"),
    (lambda: adaptation.lame(Net()).step(adaptation.lame(Net()).init(arrays()[0]), arrays()[1][0][:5]), "expected more than neighbors=5 images"),
    (lambda: adaptation.eata(Net()).init(arrays()[0], {"norm": 1}), "fisher of 1 parameters: expected that of this method and model, with 2")])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
