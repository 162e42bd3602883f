"""What the generated pages of the site share: tables, and files that are written only if they change."""


def save(folder, pages):
    """Write {file name: text} into a folder and delete its other .rst files. A file that would not change is left alone, so that Sphinx skips it."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def table(columns, rows):
    """The lines of a reStructuredText table."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (columns, *rows):
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}".rstrip() for i, cell in enumerate(row)]
    return lines
