"""Makes the example models that come with the package, from two evaluated runs of configs/digits.py.

    python -m experiments.train --config configs/digits.py:objective=standard --workdir runs/digits/standard
    python -m experiments.evaluate --workdir runs/digits/standard --config.evaluation.autoattack=standard
    python -m experiments.train --config configs/digits.py:objective=pgd_at --workdir runs/digits/pgd_at
    python -m experiments.evaluate --workdir runs/digits/pgd_at --config.evaluation.autoattack=standard
    python -m experiments.example_weights --runs runs/digits

The best checkpoint of each run becomes a folder of vmamba_jax/checkpoints/examples with its model card, metadata.json.
"""
import argparse
import pathlib
import sys

import jax

from experiments.common import cli
from vmamba_jax import checkpoints, parallel, reports
from vmamba_jax.checkpoints import examples

RUNS = {"vmamba_digits": ("standard", "A VMamba on scikit-learn's digits by standard training."),
        "vmamba_digits_robust": ("pgd_at", "A VMamba on scikit-learn's digits by PGD adversarial training, linf radius 0.2.")}
RECIPE = ("epochs", "batch_size", "optimizer", "schedule", "augment", "mix", "ema_decay")  # keys of the config beside the objective and the data
FACTS = {
    "data_about": "scikit-learn's handwritten digits, 8 x 8 gray images: the test set of UCI's Optical Recognition of Handwritten Digits (Alpaydin and "
                  "Kaynak 1998, doi 10.24432/C50P49, CC BY 4.0), split into 1,257 training, 180 validation and 360 test images; the best step is chosen on the "
                  "validation images.",
    "intended_use": "Examples and tests: a real VMamba to attack, fine-tune and analyze without a download.",
    "limits": "One seed. Trained and measured on 8 x 8 digits alone: its accuracies say nothing of photos or of larger models. Robust accuracy holds for the "
              "norm, the radius and the attacks that are named.",
    "license": "Apache-2.0",
}


def make(run, about, out):
    """Write the example model of an evaluated run to the folder `out`. Returns its metadata."""
    opened, read = checkpoints.open_weights(run), reports.read_run(run, examples=False)
    model = opened.create_model()
    variables = opened.variables(model)
    results, evaluation = read.results, read.evaluation
    attacks = {name: {key: found[key] for key in ("label", "norm", "eps", "robust_accuracy", "robust_accuracy_interval")}
               for name, found in evaluation["attacks"].items()}
    card = {
        "about": about, "model": opened.name, "overrides": opened.overrides, "classes": list(opened.class_names(model.num_classes)),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), "preprocessing": dict(opened.preprocessing),
        "data": results["config"]["data"], **FACTS, "config": f"digits:objective={results['config']['objective']['name']}",
        "recipe": {key: results["config"][key] for key in RECIPE}, "objective": results["config"]["objective"], "seed": results["seed"], "step": opened.step,
        "evaluation": {"split": evaluation["split"], "examples": evaluation["examples"], "accuracy": evaluation["accuracy"],
                       "accuracy_interval": evaluation["accuracy_interval"], "attacks": attacks},
        "commit": results["commit"], "versions": results["versions"], "sha256": parallel.fingerprint(variables)}
    checkpoints.save_variables(out, variables, card, overwrite=True)
    return card


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m experiments.example_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, type=pathlib.Path, help=f"folder of the runs {' and '.join(run for run, _ in RUNS.values())}")
    parser.add_argument("--out", type=pathlib.Path, default=examples.HERE, help="folder to write to")
    args = parser.parse_args(argv)
    with cli.exit_on_error(), cli.checking():
        for name, (run, about) in RUNS.items():
            card = make(args.runs / run, about, args.out / name)
            print(f"{args.out / name}: {card['parameters']:,} parameters, {100 * card['evaluation']['accuracy']:.1f} % clean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
