"""Anchors of a page's headings, and the list of its contents."""
import html
import re

HEADING = re.compile(r"<(h[23])>(.*?)</\1>", re.DOTALL)
LEAST = 3  # headings of a page with a list


def with_contents(text):
    """A page whose h2 and h3 have anchors and link to themselves, with a list of its h2 behind the header.

    Args:
        text: HTML with headings without attributes.
    """
    taken, listed = set(), []

    def anchored(match):
        tag, inner = match.groups()
        name = _free(_slug(inner), taken)
        if tag == "h2":
            listed.append(f'<li><a href="#{name}">{inner}</a></li>')
        return f'<{tag} id="{name}"><a href="#{name}">{inner}</a></{tag}>'

    text = HEADING.sub(anchored, text)
    if len(listed) < LEAST:
        return text
    lines = "\n".join(listed)
    return text.replace("</header>\n", f'</header>\n<nav class="contents" aria-label="Contents"><ul>\n{lines}\n</ul></nav>\n', 1)


def _slug(inner):
    """"Accuracy, in %" -> "accuracy-in"; letters of any script stay."""
    words = re.findall(r"\w+", html.unescape(re.sub("<[^>]*>", " ", inner)).lower())
    return "-".join(words) or "section"


def _free(name, taken):
    """The name, numbered if it is taken."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found
