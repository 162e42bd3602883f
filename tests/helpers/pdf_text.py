"""Where the text of a PDF lies, for PDFs as Chromium writes them: compressed streams, Type 0 fonts, one glyph at a time."""
import functools
import re
import unicodedata
import zlib
from typing import NamedTuple

OBJECT = re.compile(rb"\n(\d+) 0 obj\n(.*?)\nendobj", re.DOTALL)
TOKEN = re.compile(rb"<<|>>|<([0-9A-Fa-f]+)>|/[^\s<>\[\]/()]+|[-+]?[\d.]+|[A-Za-z*]+|\[|\]|\((?:\\.|[^\\)])*\)")
PAINTS = {b"n", b"f", b"f*", b"S", b"B", b"B*", b"s", b"b"}


class Glyph(NamedTuple):
    """A glyph: its text, its left and right end in points, and the ends of the region that it is clipped to."""
    text: str
    left: float
    right: float
    clip_left: float
    clip_right: float


def glyphs(pdf):
    """[[Glyph, ...] of each page]."""
    objects = {int(number): content for number, content in OBJECT.findall(pdf)}
    pages = [content for content in objects.values() if re.search(rb"/Type /Page\b(?!s)", content)]
    fonts, found = {}, []
    for page in pages:
        names = re.search(rb"/Font <<(.*?)>>", page, re.DOTALL)
        numbers = {name: int(number) for name, number in re.findall(rb"(/\S+) (\d+) 0 R", names[1])} if names else {}
        fonts |= {number: _font(objects, number) for number in numbers.values() if number not in fonts}
        width = float(re.search(rb"/MediaBox \[\S+ \S+ (\S+)", page)[1])
        content = _stream(objects[int(re.search(rb"/Contents (\d+) 0 R", page)[1])])
        found.append(list(_page(content, {name: fonts[number] for name, number in numbers.items()}, width)))
    return found


def _stream(content):
    start = re.search(rb"stream\r?\n", content).end()
    data = content[start:start + int(re.search(rb"/Length (\d+)", content)[1])]
    return zlib.decompress(data) if b"/FlateDecode" in content else data


def _font(objects, number):
    """({code: text}, {code: width in thousandths of the size}, width of the others)."""
    font = objects[number]
    table = _stream(objects[int(re.search(rb"/ToUnicode (\d+)", font)[1])]).decode("latin1")
    texts = {}
    for block in re.findall(r"beginbfchar(.*?)endbfchar", table, re.DOTALL):
        texts |= {int(code, 16): bytes.fromhex(text).decode("utf-16-be") for code, text in re.findall(r"<(\w+)> <(\w+)>", block)}
    for block in re.findall(r"beginbfrange(.*?)endbfrange", table, re.DOTALL):
        for first, last, text in re.findall(r"<(\w+)> <(\w+)> <(\w+)>", block):
            texts |= {code: chr(int(text, 16) + code - int(first, 16)) for code in range(int(first, 16), int(last, 16) + 1)}
    inner = objects[int(re.search(rb"/DescendantFonts \[(\d+)", font)[1])].decode("latin1")
    widths, default = {}, float(re.search(r"/DW (\S+?)[\s>/]", inner)[1]) if "/DW" in inner else 1000.0
    listed = re.search(r"/W \[(.*)\]", inner, re.DOTALL)
    for first, each, last, one in re.findall(r"(\d+) (?:\[([^\]]*)\]|(\d+) ([\d.]+))", listed[1]) if listed else ():
        values = [float(value) for value in each.split()] if each else [float(one)] * (int(last) - int(first) + 1)
        widths |= {int(first) + i: value for i, value in enumerate(values)}
    return texts, widths, default


def _times(a, b):
    """The matrix that applies a, then b; both as PDF writes them."""
    return (a[0] * b[0] + a[1] * b[2], a[0] * b[1] + a[1] * b[3], a[2] * b[0] + a[3] * b[2], a[2] * b[1] + a[3] * b[3],
            a[4] * b[0] + a[5] * b[2] + b[4], a[4] * b[1] + a[5] * b[3] + b[5])


def _x(matrix, a, b):
    return a * matrix[0] + b * matrix[2] + matrix[4]


def _page(content, fonts, width):
    matrix, clip, saved, stack, path, clips = (1, 0, 0, 1, 0, 0), (0.0, width), [], [], [], False
    font, size, line = None, 1.0, matrix
    for match in TOKEN.finditer(content):
        token = match[0]
        if match[1] or token[:1] in b"/+-.0123456789" or token in (b"<<", b">>", b"[", b"]"):
            stack.append(match[1] or token)
            continue
        x = functools.partial(_x, matrix)
        match token:
            case b"q":
                saved.append((matrix, clip))
            case b"Q":
                matrix, clip = saved.pop()
            case b"cm":
                matrix = _times(tuple(map(float, stack[-6:])), matrix)
            case b"re":
                a, b, w, h = map(float, stack[-4:])
                path += [x(a, b), x(a + w, b), x(a, b + h), x(a + w, b + h)]
            case b"m" | b"l":
                path.append(x(*map(float, stack[-2:])))
            case b"c":
                values = list(map(float, stack[-6:]))
                path += [x(*values[i:i + 2]) for i in (0, 2, 4)]
            case b"W" | b"W*":
                clips = True
            case b"Tf":
                font, size = fonts[stack[-2]], float(stack[-1])
            case b"Tm":
                line = tuple(map(float, stack[-6:]))
            case b"Td":
                line = _times((1, 0, 0, 1, *map(float, stack[-2:])), line)
            case b"Tj":
                texts, widths, default = font
                codes, at = bytes.fromhex(stack[-1].decode()), 0.0
                for code in (int.from_bytes(codes[i:i + 2], "big") for i in range(0, len(codes), 2)):
                    full, advance = _times(line, matrix), widths.get(code, default) / 1000 * size
                    ends = sorted((at * full[0] + full[4], (at + advance) * full[0] + full[4]))
                    yield Glyph(unicodedata.normalize("NFKC", texts.get(code, "")), *ends, *clip)
                    at += advance
            case _ if token in PAINTS:
                if clips and path:
                    clip = max(clip[0], min(path)), min(clip[1], max(path))
                path, clips = [], False
        stack.clear()
