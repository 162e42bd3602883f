"""Attacks of several stages over a set: only robust images are attacked, batches do not matter, a killed run resumes."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.small_net import KEY, examples, logits_fn
from vmamba_jax import attacks, evaluation, parallel
from vmamba_jax.evaluation import staged


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Three attacks, one after the other."""
    eps: float = 0.05

    def stages(self):
        return [("weak", attacks.fgsm(self.eps / 4)), ("random", attacks.pgd(self.eps, 1, step_size=0.01)),
                ("strong", attacks.pgd(self.eps, 10))]

    @property
    def settings(self):
        return {"name": "ensemble", "eps": self.eps}


class Reversed(Ensemble):
    """The strongest attack first: later margins are lower."""

    def stages(self):
        return super().stages()[::-1]


def evaluate(**options):
    return evaluation.robust_accuracy(logits_fn(), examples(), Ensemble(), key=KEY, **({"batch_size": 16} | options))


@functools.cache
def whole():
    return evaluate()


@pytest.mark.parametrize("attack", [Ensemble(), Reversed()], ids=["weak first", "strong first"])
def test_stages_by_hand(attack):
    images, labels = examples()
    result, robust = evaluation.robust_accuracy(logits_fn(), (images, labels), attack, key=KEY, batch_size=16), np.arange(37) < 31
    margin = lambda x: np.asarray(attacks.losses.margin(logits_fn()(x), labels))
    highest = last = margin(images)
    for code, (name, stage) in enumerate(attack.stages()):
        keys = jax.vmap(lambda i, code=code: jax.random.fold_in(jax.random.fold_in(KEY, i), code))(jnp.arange(37))
        adversarial = jax.jit(stage)(logits_fn(), images, labels, keys)
        fooled, last = robust & (np.asarray(logits_fn()(adversarial)).argmax(1) != labels), margin(adversarial)
        highest = np.where(robust, np.maximum(highest, last), highest)
        np.testing.assert_array_equal(result["broken_by"] == code, fooled)
        record = result["stages"][code + 1]
        assert record["name"] == name and record["attacked"] == robust.sum() and record["broken"] == fooled.sum() and record["seconds"] >= 0
        robust &= ~fooled
    np.testing.assert_array_equal(result["robust"], robust)
    np.testing.assert_allclose(result["margin"], highest, atol=1e-5)
    assert 0 < robust.sum() < 31 and result["accuracy"] == 31 / 37 and result["robust_accuracy"] == robust.mean()
    assert result["attack"] == attack.settings
    if isinstance(attack, Reversed):
        assert (highest[robust] > last[robust] + 0.01).any()
    else:
        assert all(stage["broken"] > 0 for stage in result["stages"])


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 37), (8, 5), (3, 10)])
@pytest.mark.often(1)
def test_same_for_all_devices_and_batches(devices, batch_size):
    result = evaluate(batch_size=batch_size, mesh=parallel.data_mesh(jax.devices()[:devices]))
    np.testing.assert_array_equal(result["broken_by"], whole()["broken_by"])
    np.testing.assert_allclose(result["margin"], whole()["margin"], atol=1e-5)


@pytest.mark.parametrize(("batch_size", "attacked", "devices", "rows"), [
    (64, 64, 1, 64), (64, 63, 1, 64), (64, 33, 1, 34), (64, 9, 2, 10), (64, 1, 8, 8), (64, 0, 1, 2), (512, 33, 8, 48),
    (10, 3, 1, 3), (24, 5, 8, 8),
    (4, 9, 8, 4)])
def test_rows_of_a_stage(batch_size, attacked, devices, rows):
    assert staged._rows(batch_size, attacked, devices) == rows


class Killed(Exception):
    pass


@pytest.mark.parametrize("batches_done", [1, 2, 3, 5, 6])
def test_killed_and_resumed(tmp_path, batches_done):
    """Killed after some batches, in the clean pass or a stage; the second run does not repeat them and has the same result."""
    calls = []

    def kill(done, n, figures):
        calls.append(figures["stage"])
        if len(calls) == batches_done:
            raise Killed
    with pytest.raises(Killed):
        evaluate(batch_size=16, state=tmp_path / "state.npz", progress=kill)
    resumed = evaluate(batch_size=16, state=tmp_path / "state.npz", progress=lambda done, n, figures: calls.append(figures["stage"]))
    unbroken = []
    evaluate(batch_size=16, progress=lambda done, n, figures: unbroken.append(figures["stage"]))
    assert calls == unbroken
    np.testing.assert_array_equal(resumed["broken_by"], whole()["broken_by"])
    np.testing.assert_array_equal(resumed["margin"], whole()["margin"])
    assert [{**stage, "seconds": 0} for stage in resumed["stages"]] == [{**stage, "seconds": 0} for stage in whole()["stages"]]
    again = evaluate(state=tmp_path / "state.npz", progress=lambda *figures: pytest.fail("a finished run has nothing left to do"))
    np.testing.assert_array_equal(again["broken_by"], whole()["broken_by"])


def test_state_of_another_evaluation(tmp_path):
    state = tmp_path / "state.npz"
    evaluate(state=state)
    run = functools.partial(evaluation.robust_accuracy, batch_size=16, state=state)
    images, labels = examples()
    for arguments, key, word in [((logits_fn(1), examples(), Ensemble()), KEY, "model:"),
                                 ((logits_fn(), (images, (labels + 1) % 5), Ensemble()), KEY, "data:"),
                                 ((logits_fn(), examples(), Ensemble(0.1)), KEY, "attack:"),
                                 ((logits_fn(), examples(), Ensemble()), jax.random.key(1), "key:")]:
        with pytest.raises(ValueError, match=f"of another evaluation .*{word}"):
            run(*arguments, key=key)
    content = state.read_bytes()
    for broken in (content[:len(content) // 2], b"", b"nothing"):
        state.write_bytes(broken)
        with pytest.raises(ValueError, match="damaged"):
            evaluate(state=state)
    with pytest.raises(ValueError, match="several stages"):
        evaluation.robust_accuracy(logits_fn(), examples(), attacks.fgsm(0.1), key=KEY, state=state)


def test_progress_and_per_image():
    seen = []
    result = evaluate(progress=lambda done, n, figures: seen.append((done, n, figures)))
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen) and seen[-1][0] == 37
    robust = [figures["robust"] for _, _, figures in seen]
    assert robust == sorted(robust, reverse=True) and robust[0] > robust[-1] == result["robust"].sum()
    assert [figures["accuracy"] for _, _, figures in seen[:3]] == [1, 31 / 32, 31 / 37]  # in the clean pass, over the images seen
    rows = evaluation.per_image(result)
    assert len(rows) == 37 and rows[36]["broken_by"] == "clean"
    assert {row["broken_by"] for row in rows} == {None, "clean", "weak", "random", "strong"}
    assert all((row["margin"] > 0) == (row["broken_by"] is not None) for row in rows)
    summary = evaluation.summary(result)
    assert summary["stages"] == result["stages"] and "margin" not in summary and 0 <= summary["robust_accuracy_interval"][0]


def test_by_name():
    result = evaluation.robust_accuracy(logits_fn(), examples(), "pgd", eps=0.05, steps=3, key=KEY)
    assert result["attack"]["name"] == "pgd" and result["attack"]["steps"] == 3
    with pytest.raises(TypeError, match="'steps'"):
        evaluation.robust_accuracy(logits_fn(), examples(), attacks.fgsm(0.1), steps=3, key=KEY)


def test_nothing_left_robust():
    """A stage with no survivors attacks nobody."""
    images, labels = examples()
    result = evaluation.robust_accuracy(logits_fn(), (images, (np.asarray(logits_fn()(images)).argmax(1) + 1) % 5), Ensemble(), key=KEY)
    assert result["robust_accuracy"] == result["accuracy"] == 0 and [stage["attacked"] for stage in result["stages"]] == [37, 0, 0, 0]


@pytest.mark.slow
def test_staged_autoattack_equals_autoattack():
    """The same images stand as when one call attacks the whole set as a batch."""
    images, labels = examples()
    attack = attacks.autoattack(0.05, n_targets=3, steps=6, queries=20)
    options = {"eps": 0.05, "n_targets": 3, "steps": 6, "queries": 20}
    result = evaluation.robust_accuracy(logits_fn(), (images, labels), "autoattack", key=KEY, batch_size=16, **options)
    adversarial = jax.jit(attack)(logits_fn(), images, labels, KEY)
    judged = np.asarray(logits_fn()(adversarial)).argmax(1) == labels
    np.testing.assert_array_equal(result["robust"], judged & result["correct"])
    assert [stage["name"] for stage in result["stages"]] == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert 0 < result["robust"].sum() < 31
    assert result["attack"] == attack.settings
