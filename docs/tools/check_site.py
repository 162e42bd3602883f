"""Internal links of the built site: every file that a page links to exists, and has the anchor that the link names.

    python docs/tools/check_site.py docs/_build/html
"""
import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    """The links and anchors of one page.

    Attributes:
        links: values of href and src.
        ids: values of id, and of name in <a>.
    """

    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name) and not (tag == "link" and attrs.get("rel") == "canonical")]
        self.ids |= {attrs[name] for name in ("id", "name") if attrs.get(name)}


def broken(root):
    """[(page, link), ...] of links to a file or an anchor that the site lacks.

    Only targets: sources under _modules, the theme's templates under _static, and pages of results, which link to their raw files in the repository.
    """
    root, found, pages = pathlib.Path(root).resolve(), [], {}

    def opened(path):
        if path not in pages:
            pages[path] = Page(path.read_text(encoding="utf-8", errors="replace"))
        return pages[path]

    for path in sorted(root.rglob("*.html")):
        relative = path.relative_to(root)
        if relative.parts[0] in ("_modules", "_static") or (relative.parts[0] == "results" and len(relative.parts) > 2):
            continue
        for link in opened(path).links:
            split = urllib.parse.urlsplit(link)
            if split.scheme or split.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(split.path)).resolve() if split.path else path
            anchor = urllib.parse.unquote(split.fragment)
            if not target.exists() or (anchor and target.suffix == ".html" and anchor not in opened(target).ids):
                found.append((relative.as_posix(), link))
    return found


if __name__ == "__main__":
    wrong = broken(sys.argv[1])
    print("\n".join(f"{page}: {link}: no such file or anchor" for page, link in wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
