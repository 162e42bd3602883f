"""What the mender's study measures of one run besides its evaluation, saved as mender.json in the run's folder."""
import pathlib
import time

import jax
import numpy as np

import vmamba_jax
from experiments.common import build, cli, results
from experiments.common import evaluation as common
from experiments.mending import runs
from vmamba_jax import analysis, evaluation, parallel
from vmamba_jax.core.images import unit_interval

CUE = "agreeing test images"  # those that "cue" and "maps" are measured on
SHOWN = 6  # images of the correlation maps on the page, one per class


def evaluate(config, folder, *, progress=True):
    """Evaluate as `experiments.evaluate` does, and write mender.json: accuracies on the shifted splits and the locator's reports.

    mender.json holds "conflict" and "plain" (accuracy rows), "location" (simple and difficult training images), "attacked" (the same test images
    clean and under the evaluation's attack), "cue" ({state@block: share of the correlation inside the cue and inside the shape}, on test images whose
    cue agrees with the label: there a model that reads the cue correlates with it, while another class's cue is evidence against the label, which
    the rectifiers remove), and "maps" (correlation of some of these images by state and block).
    """
    common.run(config, folder, "latest", progress=progress)
    folder = pathlib.Path(folder)
    classifier, variables, source = build.trained(config, folder)
    identity = results.identity(weights=parallel.fingerprint(variables), data=source.fingerprint, settings={
        "evaluation": results.plain(config.evaluation), "model": build.description(classifier), "cue": CUE})
    if results.saved(folder / "mender.json", identity, cli.report) is not None:
        return
    since, mesh = time.perf_counter(), parallel.data_mesh()
    fn = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh))
    options = {"batch_size": runs.BATCH, "mesh": mesh}
    content = {"identity": identity}
    for split in ("conflict", "plain"):
        content[split] = evaluation.summary(evaluation.accuracy(fn, _shifted(config, split), batch_size=config.evaluation.batch_size, mesh=mesh))
    content["location"] = analysis.locate(classifier, variables, source, per_class=10, **options)
    content["attacked"] = _attacked(config, classifier, variables, fn, options)
    content["cue"], content["maps"] = _cue(config, classifier, variables, options)
    content["seconds"] = round(time.perf_counter() - since, 1)
    results.save_json(folder / "mender.json", content)


def _attacked(config, classifier, variables, fn, options):
    """The locator's report of the same test images clean and attacked, as two groups."""
    test = build.source(config, "test")
    images, labels = test.gather(np.arange(min(runs.BATCH, len(test))))
    images, made = unit_interval(images), build.attack(config.evaluation.attacks.pgd, "config.evaluation.attacks.pgd")
    result = evaluation.robust_accuracy(fn, (images, labels), made, key=jax.random.key(config.evaluation.seed), show=tuple(range(len(labels))), **options)
    n = len(labels)
    return analysis.locate(classifier, variables, (np.concatenate([images, result["adversarial"]]), np.tile(labels, 2)),
                           masks=np.tile(test.masks[:n], (2, 1, 1)), groups={"clean": np.arange(n), "attacked": np.arange(n, 2 * n)}, **options)


def _cue(config, classifier, variables, options):
    """({state@block: {"cue", "shape"}}, maps of the first image of each class), on test images whose cue agrees with the label."""
    source = _shifted(config, "test")
    agreeing = np.flatnonzero(source.cue_labels == source.labels)[:runs.BATCH]
    found = analysis.state_correlation.measure(classifier, variables, source, agreeing, **options)
    _, first = np.unique(found.labels, return_index=True)
    shares, maps = {}, {}
    for (state, block), tokens in found.tokens.items():
        name = f"{state}@{block}"
        share = lambda masks, tokens=tokens: float(np.mean([_inside(t, m) for t, m in zip(tokens, masks[found.positions], strict=True)]))
        shares[name] = {"cue": share(source.cue_masks), "shape": share(source.masks), "cue_area": float(source.cue_masks[found.positions].mean()),
                        "shape_area": float(source.masks[found.positions].mean())}
        maps[name] = np.round(tokens[first[:SHOWN]] / np.maximum(tokens[first[:SHOWN]].max((1, 2), keepdims=True), 1e-30), 3).tolist()
    return shares, {"index": found.positions[first[:SHOWN]].tolist(), "maps": maps}


def _shifted(config, split):
    """A shifted split with its cues, also for a model trained without."""
    cued = config.copy_and_resolve_references()
    cued.data.options = {name: value for name, value in config.data.options.items() if name != "cue"}
    return build.source(cued, split)


def _inside(tokens, mask):
    """Share of the tokens' correlation that lies in the mask, by the part of each token's pixels in it."""
    rows, columns = tokens.shape
    part = mask.reshape(rows, mask.shape[0] // rows, columns, -1).mean((1, 3))
    return float((tokens * part).sum() / max(float(tokens.sum()), 1e-30))
