"""tf.train.Example messages without TensorFlow: the features that a reader names, and a writer of such messages.

Source: tensorflow/core/example/{example,feature}.proto and the encoding at protobuf.dev/programming-guides/encoding.
"""
import struct

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def parse(message, names):
    """{name: list of bytes, int or float} of the named features of a serialized tf.train.Example; a feature that is absent is left out.

    Raises:
        ValueError: bytes that are no such message.
    """
    found = {}
    for features in _parts(message, 1):
        for entry in _parts(features, 1):
            key = b"".join(_parts(entry, 1))
            if (name := bytes(key).decode("utf-8", "replace")) in names:
                found[name] = [value for feature in _parts(entry, 2) for value in _values(feature)]
    return found


def serialize(features):
    """A tf.train.Example. features: {name: bytes, str or int, or a list of one kind}."""
    entries = b""
    for name, values in features.items():
        values = values if isinstance(values, list) else [values]
        if values and isinstance(values[0], int):
            feature = _field(3, _field(1, b"".join(_varint(value & (1 << 64) - 1) for value in values)))
        else:
            feature = _field(1, b"".join(_field(1, value.encode() if isinstance(value, str) else value) for value in values))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def _values(feature):
    """The values of a tf.train.Feature."""
    for number, kind, value in _fields(feature):
        if kind != BYTES or number not in (1, 2, 3):
            continue
        for inner, form, item in _fields(value):
            if inner != 1:
                continue
            if number == 1 and form == BYTES:
                yield bytes(item)
            elif number == 2 and form in (BYTES, FIXED32):
                if len(item) % 4:
                    raise ValueError(f"a list of floats has {len(item)} bytes; expected a multiple of 4")
                yield from struct.unpack(f"<{len(item) // 4}f", item)
            elif number == 3 and form == VARINT:
                yield _signed(item)
            elif number == 3 and form == BYTES:
                at = 0
                while at < len(item):
                    one, at = _read_varint(item, at)
                    yield _signed(one)
            else:
                raise ValueError(f"a feature of kind {number} has a value of wire type {form}")


def _parts(message, number):
    """The values, as bytes, of a field of messages or bytes."""
    return [value for found, kind, value in _fields(message) if found == number and kind == BYTES]


def _fields(message):
    """(number, wire type, int or memoryview) of each field."""
    message, at = memoryview(message), 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _read_varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, at = _read_varint(message, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"a field has wire type {kind}; expected 0, 1, 2 or 5")
        if not number or at + length > len(message):
            raise ValueError(f"field {number} of {length} bytes ends after the message's {len(message)}")
        yield number, kind, message[at:at + length]
        at += length


def _read_varint(message, at):
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise ValueError("an integer does not end")


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def _varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _field(number, content):
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content
