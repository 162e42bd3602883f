"""A parser of report pages that collects what a test asks about."""
import html.parser


class Page(html.parser.HTMLParser):
    """Collects what a page refers to, links within it apart, its text, and whether its tags nest."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.anchors, self.ids, self.alts, self.text, self.open, self.classes = [], [], [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[name] for name in ("src", "data", "srcset", "poster", "xlink:href") if name in attributes]
        if tag == "a":
            href = attributes["href"]
            (self.anchors if href.startswith("#") else self.links).append(href)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.alts += [attributes.get("alt")] if tag == "img" else [attributes.get("aria-label")] if tag == "svg" else []
        self.classes.append(attributes.get("class"))
        assert tag not in ("script", "link", "iframe")
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("img", "meta"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.text.append(text)
