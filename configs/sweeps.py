"""A sweep's config: one base config, named changes to it, and seeds; `experiments.sweep` trains and evaluates every combination."""
import copy

import ml_collections


def sweep(base, *, runs=None, axes=None, seeds=(), control="", margin=0.01, title="", about="", claims=()):
    """The config of a sweep, with every key; `--config.base.epochs=3`, `--config.seeds=(0,1)` and the like change it.

    Args:
        base: training config, such as `configs.digits.get_config()`; a copy is taken.
        runs: {name: changes} of each group of runs. Changes are a nested dict of fields of the base: `{"optimizer": {"weight_decay": 0.1}}` changes
            one field; a section whose `name` changes, such as the objective, is replaced as a whole. {}: the base itself.
        axes: {axis: values} instead of `runs`: one group for each combination, named by its values joined by "-". Values are {name: changes} as of
            `runs`, or {"field": "optimizer.weight_decay", "values": (0.0, 0.1)}.
        seeds: values of the base's `seed`; every group is run once with each. (): one run for each group, with the base's own seed.
        control: the group that the others are compared with, seed by seed; "": the first.
        margin: two groups count as equal if the interval of their difference lies within plus or minus this accuracy.
        title, about: heading and first paragraph of the page; "": from the base's model and dataset.
        claims: statements that the page judges, as (sentence, group, other group, claimed). claimed: "above", the group is more accurate than the
            other, or "alike".
    """
    return ml_collections.ConfigDict({
        "base": copy.deepcopy(base), "runs": runs or {}, "axes": axes or {}, "seeds": tuple(seeds), "control": control, "margin": margin,
        "title": title, "about": about, "claims": tuple(map(tuple, claims))})
