"""What reading a foreign file may take, and JSON within it: 50 MB of memory and eight times the file's size, all together."""
import json

SPARE, TIMES = 40 << 20, 7  # bytes, and bytes per byte of the file, besides the file's own content
JSON_COSTS = {b"[": 80, b"{": 256, b":": 100, b",": 40, b'"': 28}  # bytes of the objects that a sign of JSON stands for, in CPython, at most


def memory(size):
    """Bytes of memory that reading a file of `size` bytes may take besides its content."""
    return SPARE + TIMES * size


def check_json(raw, name):
    """Raise a ValueError, which begins with `name`, if the values in JSON bytes may take more memory than their file justifies."""
    needed = len(raw) + sum(cost * raw.count(sign) for sign, cost in JSON_COSTS.items())
    if needed > memory(len(raw)):
        raise ValueError(f"{name}: expected JSON of at most {memory(len(raw))} bytes in memory, got up to {needed}")


def parse_json(raw, name):
    """The value in JSON bytes.

    Raises:
        ValueError: anything but JSON, or too many values for its size; the message begins with `name`.
    """
    check_json(raw, name)
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON, but {str(error)[:200]}") from error
