"""Random keys per image and per attempt of a search."""
import jax
import numpy as np
import pytest

from vmamba_jax.core import keys

KEY = jax.random.key(3)


def same(a, b):
    np.testing.assert_array_equal(jax.random.key_data(a), jax.random.key_data(b))


def test_keys_do_not_depend_on_the_batch():
    whole = keys.per_image_keys(KEY, 10)
    same(whole[5:], keys.per_image_keys(KEY, 5, offset=5))
    same(whole[np.array([7, 2])], keys.keys_at(KEY, np.array([7, 2])))
    same(whole[4], jax.random.fold_in(KEY, 4))
    same(keys.image_keys(KEY, 10), whole)
    same(keys.image_keys(whole, 10), whole)


def test_restarts_keep_the_keys_of_the_first_attempts():
    """Target t and restart r fold in t, then r: attempt t * restarts + r."""
    each = keys.per_image_keys(KEY, 4)
    for restarts in (1, 3):
        for target in (0, 2):
            same(keys.attempt_keys(each, target * restarts, restarts), keys.attempt_keys(each, target, 1))
    same(keys.attempt_keys(each, 5, 3), keys.fold_in(keys.fold_in(each, 1), 2))
    assert keys.attempt_keys(None, 0, 1) is None


def test_bad_keys():
    for call, error, message in [
        (lambda: keys.per_image_keys(3, 2), TypeError, "key=3: expected jax.random.key"),
        (lambda: keys.per_image_keys(jax.random.split(KEY, 2), 2), ValueError, r"key.shape=\(2,\): expected one key"),
        (lambda: keys.image_keys(jax.random.split(KEY, 3), 2), ValueError, r"key.shape=\(3,\): expected one key, or one for each of 2 images"),
    ]:
        with pytest.raises(error, match=message):
            call()
