"""Docstrings as reStructuredText. They are plain text in Google form with `code` in backquotes; no other character is markup."""
import re

CODE = re.compile(r"(`+)([^`]+)\1")
SECTION = re.compile(r"(Args|Returns|Yields|Raises|Fields|Metrics):\s*$")
NAMED = re.compile(r"\w+(, \w+)*: ")


def restructured(lines):
    """The lines of a docstring with code as literals, indented code as literal blocks, and results as fields.

    "Args" and "Raises" stay as they are: Sphinx's napoleon reads them next. Lines with a hanging indent within a section become items of a list.
    """
    return [line for block in _sections(_literal_blocks([_escaped(line) for line in lines])) for line in block]


def _escaped(line):
    """One line: `code` as ``code``, with a separator before a letter as in `Run`s, and the characters of markup escaped outside of it."""
    parts = CODE.split(line)
    text = ""
    for i, part in enumerate(parts):
        if i % 3 == 0:
            part = re.sub(r"([*|\\])|(?<=\w)(_)(?!\w)", r"\\\g<0>", part).replace("`", "\\`")
            text += ("\\ " if i and part[:1].isalnum() else "") + part
        elif i % 3 == 2:
            text += f"``{part}``"
    return text


def _literal_blocks(lines):
    """Paragraphs indented by at least four more columns than the text before them, as literal blocks."""
    found, base, inside = [], 0, None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if inside is not None and line.strip() and indent < inside:
            inside = None
        if inside is None and line.strip() and i and not lines[i - 1].strip() and indent >= base + 4:
            inside = indent
            found += [f"{' ' * base}.. code-block:: text", ""]
        if line.strip() and inside is None:
            base = indent
        found.append(_unescaped(line) if inside is not None else line)
    return found


def _unescaped(line):
    return re.sub(r"\\([*|\\_`])", r"\1", line).replace("``", "`")


def _sections(lines):
    """Blocks of lines: text as it is, the fields of Args and Raises with lists in them, results as the field `returns`."""
    i = 0
    while i < len(lines):
        header = SECTION.match(lines[i].strip())
        if header is None or (i and lines[i - 1].strip()):
            yield [lines[i]]
            i += 1
            continue
        outer, start = _indent(lines[i]), i + 1
        i = start
        while i < len(lines) and (not lines[i].strip() or _indent(lines[i]) > outer):
            i += 1
        body, pad = lines[start:i], " " * outer
        while body and not body[-1].strip():
            body.pop()
        if header[1] in ("Returns", "Yields"):
            yield [f"{pad}:{header[1].lower()}:", *(f"{pad}    {line}" for line in _lists(_dedented(body))), ""]
        else:
            yield [lines[start - 1], *_fields(body), ""]


def _fields(body):
    """The fields of Args or Raises: `name: text` with continuation lines, whose hanging indents become lists."""
    base = min((_indent(line) for line in body if line.strip()), default=0)
    found, rest = [], []
    for line in [*body, None]:
        if line is None or (line.strip() and _indent(line) == base):
            inner = min((_indent(x) for x in rest if x.strip()), default=0)
            found += [f"{' ' * inner}{x}" if x else "" for x in _lists(_dedented(rest))]
            found, rest = found + ([line] if line is not None else []), []
        else:
            rest.append(line)
    return found


def _lists(lines):
    """Dedented lines where a line followed by an indented one, or `name: text` below a line that ends with a colon, becomes an item of a list."""
    found, listed = [], False
    for i, line in enumerate(lines):
        hanging = line[:1] == " "
        before = lines[i - 1].strip() if i else ""
        option = NAMED.match(line) and (listed or before.endswith(":"))
        begins = bool(line.strip()) and not hanging and (option or (lines[i + 1:i + 2] and lines[i + 1][:1] == " ")) and not line.startswith("..")
        if begins:
            found += [""] * (bool(found) and bool(found[-1].strip())) + [f"- {line}"]
            listed = True
        elif hanging and listed:
            found.append(f"  {line.strip()}")
        else:
            found += ([""] if listed and line.strip() else []) + [line]
            listed = False
    return found


def _dedented(lines):
    inner = min((_indent(line) for line in lines if line.strip()), default=0)
    return [line[inner:] for line in lines]


def _indent(line):
    return len(line) - len(line.lstrip())
