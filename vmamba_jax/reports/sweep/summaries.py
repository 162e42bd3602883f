"""The summary of a sweep as CSV, Markdown, LaTeX and terminal text."""
import csv
import io
import re

from vmamba_jax.reports.sweep import claims, results
from vmamba_jax.reports.tables import aligned, points

STATISTICS = ("n", "mean", "sd", "low", "high")
LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\u221e": r"$_\infty$", "\u2212": "$-$", "\u00b1": r"$\pm$"}
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#$~])")
NOTE = ("Mean over seeds and sample standard deviation; in brackets the 95 % confidence interval of the mean (Student's t). Differences are paired by "
        "seed, with a paired t interval.")


def summary_csv(sweep):
    """The summary as CSV (RFC 4180): one row for each group and metric, accuracies as fractions, empty cells for what one seed cannot give."""
    rows = results.summary(sweep)
    axes = list(dict.fromkeys(axis for row in rows for axis in row["axes"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["group", *axes, "metric", *STATISTICS, "control", *(f"difference_{name}" for name in STATISTICS), "verdict"])
    for row in rows:
        change = row["difference"] or {}
        writer.writerow([row["group"], *(row["axes"].get(axis, "") for axis in axes), row["metric"], *(row[name] for name in STATISTICS),
                         sweep.control if change else "", *(change.get(name) for name in STATISTICS), change.get("verdict")])
    return buffer.getvalue()


def summary_md(sweep):
    """The summary as GitHub Markdown tables: accuracy in % of each group, differences in points from the control, and the statements' verdicts."""
    accuracy, differences = _tables(sweep)
    parts = [_markdown(*accuracy)] + ([f"Difference from {markdown(sweep.control)}, in points:\n", _markdown(*differences)] if differences[1] else [])
    if judged := claims.judged(sweep):
        rows = [[row["sentence"], row["metric"], f"{row['group']} - {row['against']}", change(row), row["verdict"]] for row in judged]
        parts += ["Statements:\n", _markdown(["statement", "metric", "difference", "points", "verdict"], rows)]
    return "\n".join([*parts, NOTE + "\n"])


def summary_tex(sweep):
    """The summary as two LaTeX tabulars for `booktabs`: accuracy in % of each group, and differences in points from the control."""
    accuracy, differences = _tables(sweep)
    parts = ["% Needs \\usepackage{booktabs}. " + NOTE.replace("\n", " "), _latex(*accuracy)]
    if differences[1]:
        parts += [f"% Difference from {latex(sweep.control)}, in points.", _latex(*differences)]
    return "\n".join(parts) + "\n"


def sweep_text(sweep):
    """The summary and the state of the runs, for a terminal."""
    lines = [table for table in _tables(sweep) if table[1]]
    count = {status: sum(run.status == status for run in sweep.runs) for status in dict.fromkeys(run.status for run in sweep.runs)}
    return "\n\n".join([*(aligned([columns, *rows]) for columns, rows in lines), "runs: " + ", ".join(f"{n} {status}" for status, n in count.items())])


def latex(text):
    """Text with LaTeX's special characters escaped."""
    return "".join(LATEX.get(character, character) for character in str(text))


def markdown(text):
    """Text with Markdown's special characters escaped, for a table's cell."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def percent(row):
    """"97.1 ± 0.3 [96.4, 97.8]" from a row of the summary; "97.1" for one seed; "" for None."""
    if row is None:
        return ""
    spread = f" \u00b1 {100 * row['sd']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" if row["n"] > 1 else ""
    return f"{100 * row['mean']:.1f}{spread}"


def change(row):
    """"+3.1 [+1.0, +5.2]" from a difference; "+3.1" for one seed."""
    return points(row["mean"]) + (f" [{points(row['low'])}, {points(row['high'])}]" if row["n"] > 1 else "")


def _tables(sweep):
    """((columns, rows) of accuracies by group, (columns, rows) of differences by group and metric), cells as text."""
    rows = results.summary(sweep)
    by = {(row["group"], row["metric"]): row for row in rows}
    seeds = {group: max(row["n"] for row in rows if row["group"] == group) for group in dict.fromkeys(row["group"] for row in rows)}
    accuracy = (["group", "seeds", *(f"{metric}, %" for metric in sweep.values)],
                [[group, n, *(percent(by.get((group, metric))) for metric in sweep.values)] for group, n in seeds.items()])
    differences = (["group", "metric", "seeds", "difference", "verdict"],
                   [[row["group"], row["metric"], row["difference"]["n"], change(row["difference"]), row["difference"]["verdict"]]
                    for row in rows if row["difference"]])
    return accuracy, differences


def _markdown(columns, rows):
    words = 2 if columns[1] == "metric" else 1
    lines = [[markdown(cell) for cell in columns], ["---" if i < words else "---:" for i in range(len(columns))],
             *([markdown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _latex(columns, rows):
    words = 2 if columns[1] == "metric" else 1
    line = lambda cells: " & ".join(map(latex, cells)) + r" \\"
    return "\n".join([rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(columns) - words)}}}", r"\toprule", line(columns), r"\midrule", *map(line, rows),
                      r"\bottomrule", r"\end{tabular}"])
