"""docs/results/gallery.md: one entry for each committed result, from its page, its JSON files and docs/results/README.md.

    python docs/tools/gallery.py     writes it, and the first figure of each page beside the page

A test compares both with the files; run this after adding or redrawing a result.
"""
import base64
import html
import json
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).parent.parent.parent
RESULTS = ROOT / "docs" / "results"
HEAD = """# Gallery of results

Every committed result with its first figure, its command, the device, and the verdicts on its statements. *Seen*, *not seen* and *inconclusive* are
defined on each page and in the [glossary](../glossary.md#verdicts). [Results](README.md) has the numbers and their limits. All models here are small, or
measured on few images. This page is written by `python docs/tools/gallery.py`.
"""


def folders():
    return sorted(page.parent for page in RESULTS.glob("*/*.html"))


def figure(page):
    """(file name, bytes) of the first figure of a page: an inline SVG as a file of its own, or an embedded image."""
    drawn, photo = re.search(r"<svg role=\"img\".*?</svg>", page, re.DOTALL), re.search(r"<img[^>]*src=\"data:image/(\w+);base64,([^\"]*)\"", page)
    if drawn is None or (photo is not None and photo.start() < drawn.start()):
        return f"figure.{photo[1]}", base64.b64decode(photo[2])
    text = re.sub(r"var\(--[\w-]+, (#\w+)\)", r"\1", drawn[0])
    box = re.search(r'viewBox="([^"]*)"', text)[1]
    _, _, width, height = box.split()
    text = text.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" height="{height}" '
                        'font-family="sans-serif" style="background: white" ', 1)
    return "figure.svg", text.encode() + b"\n"


def alternative(page):
    """The first figure's text for screen readers."""
    found = re.search(r'<svg role="img" aria-label="([^"]*)"|<img[^>]*?alt="([^"]*)"', page)
    return html.unescape(found[1] or found[2]).rstrip(".")


def section(name):
    """(first paragraph, command) of a result in docs/results/README.md."""
    text = (RESULTS / "README.md").read_text().split(f"## {name}\n", 1)[1].split("\n## ")[0]
    paragraphs = [part for part in text.strip("\n").split("\n\n") if part.strip()]
    command = next((part for part in paragraphs if part.startswith("    ")), "")
    return paragraphs[0], textwrap.dedent(command)


def facts(folder):
    """{name: value} of device, versions and commit, from the first JSON file that has a device."""
    files = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/seed_*/results.json"))[:1]]
    saved = next((found for found in map(_read, files) if "device" in found), {})
    versions = saved.get("versions", {})
    return {"device": saved.get("device", ""), "software": ", ".join(f"{name} {versions[name]}" for name in ("vmamba_jax", "jax", "python") if name in versions),
            "commit": (saved.get("commit") or "").removesuffix("+")}


def judged(folder):
    """[(verdict, sentence), ...] of a result's statements, each once for each verdict; [] for a result that judges none."""
    from vmamba_jax import reports
    from vmamba_jax.reports import attack_quality
    from vmamba_jax.reports.sweep import claims
    if (folder / "study.json").exists():
        rows = [(claim.verdict, claim.sentence) for _, each in reports.read_study(folder).claims for claim in each if claim.comparisons]
    elif (folder / "attack_quality.json").exists():
        rows = [(row["verdict"], row["sentence"]) for row in attack_quality.judged(_read(folder / "attack_quality.json"))]
    elif (folder / "sweep.html").exists():
        rows = [(row["verdict"], f"{row['sentence']} ({row['metric']})") for row in claims.judged(reports.read_sweep(folder))]
    else:
        rows = [(row["verdict"], row["sentence"]) for name in ("ads", "mender", "certify") for row in _read(folder / f"{name}.json").get("claims", ())]
    return [(verdict, sentence.strip().rstrip(".")) for verdict, sentence in dict.fromkeys(rows)]


def entry(folder):
    """The Markdown of one result."""
    [page] = folder.glob("*.html")
    text, (paragraph, command), rows = page.read_text(encoding="utf-8"), section(folder.name), judged(folder)
    name, known = figure(text)[0], facts(folder)
    lines = [f"## {folder.name}", "", f"![{alternative(text)}]({folder.name}/{name})", "", paragraph, "",
             f'<a href="{folder.name}/{page.name}">The page</a>. [Numbers and limits](README.md#{folder.name}). '
             + " ".join(f"{key.capitalize()}: {value}." for key, value in known.items() if value), "", "```text", command.rstrip(), "```", ""]
    for verdict in ("seen", "not seen", "inconclusive"):
        said = [sentence for found, sentence in rows if found == verdict]
        lines += [f"- **{verdict.capitalize()}** ({len(said)}): {'; '.join(said)}."] if said else []
    return "\n".join([*lines, *([] if rows else ["No statement is judged here."]), ""])


def page():
    return "\n".join([HEAD, *(entry(folder) for folder in folders())])


def files():
    """{path: bytes} of everything that `python docs/tools/gallery.py` writes."""
    found = {RESULTS / "gallery.md": page().encode()}
    for folder in folders():
        [drawn] = folder.glob("*.html")
        name, content = figure(drawn.read_text(encoding="utf-8"))
        found[folder / name] = content
    return found


def _read(path):
    content = json.loads(path.read_text()) if path.exists() else {}
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for path, content in files().items():
        path.write_bytes(content)
