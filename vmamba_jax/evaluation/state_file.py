"""The state of an evaluation in a file: facts and arrays over the set, with the identity of the run that wrote them."""
import json

import jax
import numpy as np

from vmamba_jax import parallel
from vmamba_jax.core import files, limits, zip_files
from vmamba_jax.core.run_folder import local_copy, run_folder
from vmamba_jax.evaluation import identity
from vmamba_jax.version import __version__


def identify(logits_fn, source, settings, key, model_id, state):
    """What a state file and the run that resumes from it must share: weights, set, settings, key and versions.

    Args:
        logits_fn, source, model_id, state: as for `robust_accuracy`.
        settings: plain JSON, of the attack or the certificate.
        key: the random key.
    """
    data = parallel.fingerprint(source) if isinstance(source, tuple) else getattr(source, "fingerprint", None) or identity.of(source)[0]
    return {"model": identity.of_model(logits_fn, model_id, state), "data": data, "attack": json.loads(json.dumps(settings)),
            "key": np.asarray(jax.random.key_data(key)).tolist(), "versions": f"vmamba_jax {__version__}, jax {jax.__version__}"}


def read(path, own, about, check=lambda facts: None):
    """(facts, {name: array}) of a state file.

    Args:
        path: of the file.
        own: {name: array} of this run, whose shapes and types the arrays must have.
        about: the run's identity, of `identify`.
        check: raises an error for facts of another form.

    Raises:
        ValueError: a damaged file, or one of another run.
    """
    try:
        with local_copy(run_folder(path)) as local:
            found = zip_files.read_npz(local, ("facts", *own))
        facts = limits.parse_json(str(found.pop("facts")).encode(), "facts")
        if any(found[name].shape != array.shape or found[name].dtype != array.dtype for name, array in own.items()):
            raise ValueError("its arrays have another length or type")
        if not isinstance(facts, dict) or not isinstance(facts["identity"], dict):
            raise ValueError("its facts have another form")
        check(facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"state={str(path)!r} is damaged ({error}): expected the state of an evaluation; remove it") from error
    saved = facts["identity"]
    if differing := sorted(name for name in about.keys() | saved.keys() if about.get(name) != saved.get(name)):
        shown = "; ".join(f"{name}: {saved.get(name)!r} in the file, {about.get(name)!r} in this run" for name in differing)
        raise ValueError(f"state={str(path)!r} is of another evaluation ({shown}): expected that of this one; remove it")
    return facts, found


def write(path, facts, arrays):
    """Write a state file, whole or not at all; on process 0 only."""
    if jax.process_index():
        return
    with files.atomic(run_folder(path)) as part, open(part, "wb") as file:
        np.savez(file, facts=json.dumps(facts), **arrays)
