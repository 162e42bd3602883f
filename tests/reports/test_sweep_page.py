"""The page and the summaries of a sweep: statistics by hand, escaping, missing runs, one seed."""
import csv
import io
import json
import re

import numpy as np
import pytest
import scipy.stats

from tests.helpers import fake_sweep
from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.core import statistics
from vmamba_jax.reports.sweep import claims, figures, results, summaries

ROBUST = "PGD-20, 3 restarts, L\u221e 0.2"
GROUPS = ("standard", "pgd_at", "wide")


def write(folder, groups=GROUPS, seeds=(0, 1, 2), failed=("wide/seed_1",), begun=(), title="Cost $5 & $6 <b>", control="", claims=(), **values):
    """A sweep's folder as `experiments.sweep` leaves it. values: {run's name with / as __: (clean, robust)} in place of the helper's."""
    config = fake_sweep.plan(groups, seeds, title=title, control=control, claims=claims)
    runs = [{"name": f"{group}/seed_{seed}", "group": group, "axes": {}, "seed": seed} for seed in seeds for group in groups]
    for run in runs:
        at = folder / run["name"]
        at.mkdir(parents=True)
        record = {"host": "node_1", "since": "2026-11-27T04:00:00+00:00", "status": "done", "seconds": 61.5}
        if run["name"] in failed:
            record |= {"status": "failed", "reason": "ValueError: loss is <nan> & $5"}
            (at / "error.txt").write_text("Traceback")
        elif run["name"] in begun:
            record |= {"status": "running"}
        else:
            train = config.base.copy_and_resolve_references()
            train.seed = run["seed"]
            fake_sweep.train(train, at)
            fake_sweep.evaluate(train, at)
            if (given := run["name"].replace("/", "__")) in values:
                saved = json.loads((at / "evaluation.json").read_text())
                saved["accuracy"], saved["attacks"]["pgd"]["robust_accuracy"] = values[given]
                (at / "evaluation.json").write_text(json.dumps(saved))
            (at / "report.html").write_text("report")
        (at / "run.json").write_text(json.dumps(record))
    index = {"config": json.loads(config.to_json_best_effort()), "runs": runs, "groups": list(groups), "versions": {"jax": "0.10.2"}, "commit": "0123abc",
             "device": "cpu x 2"}
    (folder / "sweep.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return reports.read_sweep(write(tmp_path_factory.mktemp("sweep"), begun=("pgd_at/seed_2",)))


def by_hand(group, seeds, which):
    return np.array([fake_sweep.accuracies(group, seed)[which] for seed in seeds])


@pytest.mark.parametrize("group, seeds", [("standard", (0, 1, 2)), ("pgd_at", (0, 1)), ("wide", (0, 2))])
@pytest.mark.parametrize("which, metric", [(0, "clean"), (1, ROBUST)])
def test_statistics_by_hand(sweep, group, seeds, which, metric):
    row = next(row for row in results.summary(sweep) if (row["group"], row["metric"]) == (group, metric))
    x = by_hand(group, seeds, which)
    low, high = scipy.stats.t.interval(0.95, len(x) - 1, loc=x.mean(), scale=scipy.stats.sem(x))
    np.testing.assert_allclose([row["mean"], row["sd"], row["low"], row["high"]], [x.mean(), np.std(x, ddof=1), low, high], rtol=1e-12)
    assert row["n"] == len(seeds)
    if group == "standard":
        assert row["difference"] is None
        return
    d = x - by_hand("standard", seeds, which)
    paired = scipy.stats.ttest_rel(x, by_hand("standard", seeds, which)).confidence_interval(0.95)
    found = row["difference"]
    np.testing.assert_allclose([found["mean"], found["sd"], found["low"], found["high"]], [d.mean(), d.std(ddof=1), paired.low, paired.high], rtol=1e-9)
    assert found["n"] == len(seeds)


@pytest.mark.parametrize("differences, verdict", [
    ((0.02, 0.021, 0.019), "seen"), ((-0.02, -0.021, -0.019), "seen"), ((0.001, -0.001, 0.0), "not seen"), ((0.05, -0.05, 0.0), "inconclusive"),
    ((0.03,), "inconclusive"), ((0.0, 0.0), "not seen"), ((0.009, 0.011, 0.0), "inconclusive"), ((-0.03, -0.01, -0.02), "inconclusive")])
def test_verdicts(tmp_path, differences, verdict):
    values = {f"a__seed_{i}": (0.5 + d, 0.5) for i, d in enumerate(differences)} | {f"b__seed_{i}": (0.5, 0.5) for i in range(len(differences))}
    sweep = reports.read_sweep(write(tmp_path, ("b", "a"), tuple(range(len(differences))), (), **values))
    assert results.difference(sweep, "a", "clean")["verdict"] == verdict


def test_differences_use_the_common_seeds_and_the_control(tmp_path):
    sweep = reports.read_sweep(write(tmp_path, failed=("standard/seed_0", "pgd_at/seed_1"), control="pgd_at"))
    found = results.difference(sweep, "standard", "clean")
    assert found["n"] == 1 and found["mean"] == pytest.approx(float(by_hand("standard", (2,), 0)[0] - by_hand("pgd_at", (2,), 0)[0]))
    assert results.difference(sweep, "pgd_at", "clean") is None and found["low"] is None
    nothing = reports.read_sweep(write(tmp_path / "b", failed=("standard/seed_0", "standard/seed_1", "standard/seed_2")))
    assert results.difference(nothing, "pgd_at", "clean") is None


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_interval_of_no_numbers_is_refused(values):
    with pytest.raises(ValueError, match="values=.*: expected a sequence of at least one number"):
        statistics.mean_interval(values)


def test_csv(sweep):
    """RFC 4180: lines end in CRLF, a field with a comma is quoted, numbers keep every digit."""
    text = reports.summary_csv(sweep)
    assert text.count("\r\n") == 7 and "\n" not in text.replace("\r\n", "") and f'"{ROBUST}"' in text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["group"], row["metric"]) for row in rows] == [(group, metric) for group in GROUPS for metric in ("clean", ROBUST)]
    assert float(rows[2]["mean"]) == by_hand("pgd_at", (0, 1), 0).mean() and rows[2]["control"] == "standard" and rows[2]["difference_n"] == "2"
    assert rows[0]["verdict"] == rows[0]["difference_mean"] == rows[0]["control"] == ""


def test_csv_has_a_column_for_each_axis(sweep):
    index = {**sweep.index, "runs": [run | {"axes": {"width": 'a,"b"'}} for run in sweep.index["runs"]]}
    text = reports.summary_csv(results.Sweep(sweep.folder, index, sweep.runs))
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0][:3] == ["group", "width", "metric"] and rows[1][1] == 'a,"b"' and '"a,""b"""' in text


def test_latex(sweep):
    text = reports.summary_tex(sweep)
    assert "pgd\\_at & 2 & " in text and "clean, \\%" in text and "L$_\\infty$ 0.2" in text and text.count("\\begin{tabular}") == text.count("\\bottomrule") == 2
    assert not re.search(r"(?<!\\)[%_](?!.*booktabs)", "".join(line for line in text.splitlines() if not line.startswith("%")).replace("$_\\infty$", ""))
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
    assert all(line.count(" & ") == columns - 1 for line in text.split("\\end{tabular}")[0].splitlines() if line.endswith("\\\\"))


def test_escaping():
    assert summaries.latex("a_b & 5% of $x$ #1 {~^\\}") == r"a\_b \& 5\% of \$x\$ \#1 \{\textasciitilde{}\textasciicircum{}\textbackslash{}\}"
    assert summaries.markdown("a_b|c\n<d> *e*") == r"a\_b\|c \<d\> \*e\*"


def test_markdown(sweep):
    lines = reports.summary_md(sweep).splitlines()
    assert lines[0] == f"| group | seeds | clean, % | {ROBUST}, % |" and lines[3].startswith("| pgd\\_at | 2 |")
    assert len({line.replace("\\|", "").count("|") for line in lines[:5]}) == 1 and "Difference from standard, in points:" in lines


def test_terminal(sweep):
    text = reports.sweep_text(sweep)
    assert text.splitlines()[-1] == "runs: 7 done, 1 failed, 1 running" and "pgd_at" in text


def test_page_has_every_number_and_is_self_contained(sweep):
    path = reports.write_sweep(sweep.folder, sweep, commands=["python -m experiments.sweep --config x"])
    text = path.read_text()
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    x = 100 * by_hand("pgd_at", (0, 1), 1)
    assert page.open == [] and all(page.alts) and len(page.alts) == 2 and "url(http" not in text
    for expected in ("Cost $5 & $6 <b>", f"{x.mean():.1f} \u00b1 {x.std(ddof=1):.1f}", "7 of 9 runs done", "2 without results", "standard (control)",
                     "ValueError: loss is <nan> & $5", "it began 2026-11-27T04:00:00+00:00 on node_1 and has not finished", "python -m experiments.sweep",
                     "Difference from standard, paired by seed", "0123abc", "jax 0.10.2", "inconclusive", "objective.name", "360 images"):
        assert expected in words, expected
    assert {f"{run.name}/{file}" for run in sweep.done for file in ("report.html", "training.html")} <= set(page.links)
    assert all((sweep.folder / link).exists() for link in page.links if not link.startswith("#")) and "wide/seed_1/error.txt" in page.links
    assert text == reports.render_sweep(sweep, commands=["python -m experiments.sweep --config x"])


def test_page_of_one_seed_has_no_interval_and_says_why(tmp_path):
    words = " ".join(" ".join(Page(reports.render_sweep(reports.read_sweep(write(tmp_path, seeds=(0,), failed=())))).text).split())
    assert "No spread and no interval for standard, pgd_at, wide: one seed cannot give them." in words
    assert "none: one seed" in words and "inconclusive" in words and "[" not in words.split("Difference from")[0] and "nan" not in words


def test_page_without_any_result(tmp_path):
    folder = write(tmp_path, seeds=(0,), failed=("standard/seed_0", "wide/seed_0"), begun=("pgd_at/seed_0",))
    (folder / "wide/seed_0/run.json").unlink()
    page = Page(reports.render_sweep(reports.read_sweep(folder)))
    words = " ".join(" ".join(page.text).split())
    assert page.open == [] and "No run is done." in words and "no process has taken it yet" in words and "0 of 3 runs done" in words
    reports.write_sweep(folder, reports.read_sweep(folder))


def test_a_run_with_missing_or_damaged_results_is_incomplete(tmp_path):
    folder = write(tmp_path, failed=())
    (folder / "wide/seed_0/evaluation.json").unlink()
    (folder / "wide/seed_1/metrics.jsonl").write_text("no JSON\n{}\n")
    sweep = reports.read_sweep(folder)
    page = reports.render_sweep(sweep)
    assert [run.status for run in sweep.runs].count("incomplete") == 2
    assert "its evaluation.json or metrics.jsonl is missing" in page and "metrics.jsonl, line 1: expected a JSON object" in page


def test_a_folder_without_a_sweep_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected sweep.json in it; run `python -m experiments.sweep"):
        reports.read_sweep(tmp_path)


def test_tables_count_the_seeds_of_each_comparison(tmp_path):
    """pgd_at has three seeds, its difference from the control the two that the control has."""
    lines = reports.summary_md(reports.read_sweep(write(tmp_path, ("standard", "pgd_at"), failed=("standard/seed_0",)))).splitlines()
    assert [line.split(" | ")[1] for line in lines if line.startswith("| pgd")] == ["3", "clean", ROBUST]
    assert [line.split(" | ")[2] for line in lines if line.startswith("| pgd")][1:] == ["2", "2"]


def test_curves_are_over_epochs(sweep):
    """The stand-in for training validates after each of four epochs of ten steps."""
    epochs, accuracy = figures.curve(sweep.done[0].run, "validation/accuracy")
    np.testing.assert_allclose(epochs, [1, 2, 3, 4])
    np.testing.assert_allclose(accuracy, by_hand("standard", (0,), 0)[0] * epochs / 4)


def test_statements(tmp_path):
    """Each statement is judged under each accuracy, paired by seed; the page and summary.md have it."""
    values = {f"{group}__seed_{seed}": (clean + 0.001 * seed, robust) for group, clean, robust in (("standard", 0.9, 0.1), ("pgd_at", 0.8, 0.6))
              for seed in range(3)}
    folder = write(tmp_path, claims=(("Training <b> helps", "pgd_at", "standard", "above"), ("Equal", "standard", "standard", "alike")), failed=(), **values)
    found = claims.judged(reports.read_sweep(folder))
    assert [(row["metric"], row["verdict"], round(row["mean"], 6)) for row in found] == [
        ("clean", "not seen", -0.1), (ROBUST, "seen", 0.5), ("clean", "seen", 0.0), (ROBUST, "seen", 0.0)]
    reports.write_sweep(folder, reports.read_sweep(folder))
    assert "| Training \\<b\\> helps | clean | pgd\\_at - standard | " in (folder / "summary.md").read_text()
    page = (folder / "sweep.html").read_text()
    assert "Training &lt;b&gt; helps" in page and page.count('class="verdict') == 4 + len([row for row in results.summary(reports.read_sweep(folder))
                                                                                         if row["difference"]])


@pytest.mark.parametrize("low,high,n,above,alike", [
    (0.001, 0.1, 3, "seen", "not seen"), (-0.1, -0.001, 3, "not seen", "not seen"), (-0.01, 0.01, 3, "not seen", "seen"),
    (-0.02, 0.01, 3, "inconclusive", "inconclusive"), (0.001, 0.005, 3, "seen", "seen"), (None, None, 1, "inconclusive", "inconclusive")])
def test_verdicts_of_statements(low, high, n, above, alike):
    found = {"n": n, "low": low, "high": high}
    assert (claims.verdict(found, "above", 0.01), claims.verdict(found, "alike", 0.01)) == (above, alike)
