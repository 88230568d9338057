"""Encoding of plain values between two processes that do not trust each other.

A value is sent as tagged JSON: None, bool and str as they are, everything else as a list that begins with its tag.
Unlike pickle and marshal it carries no classes, code or references, so a reply can be wrong but is always just a value.
Instances of subclasses (Counter, IntEnum, namedtuple, …) are sent as the plain type that they extend; other objects,
such as complex numbers and iterators, are rejected.

    ["int", "-1f"]                hexadecimal: any size, parsed in linear time
    ["float", "0x1.8p+1"]         float.hex: exact, with "inf" and "nan"
    ["bytes", "00ff"]
    ["list"|"tuple"|"set"|"frozenset", [item, …]]
    ["dict", [[key, value], …]]   in insertion order

A frame is the length of its JSON as four big-endian bytes, then the JSON.
"""

import json
import struct

OK, TOO_MUCH_MEMORY = b".", b"m"  # the zygote's answers after a candidate has ended
MAX_BYTES = 1 << 20
MAX_DEPTH = 64
_LENGTH = struct.Struct(">I")
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(Exception):
    """A value of another type, too deep or too large, or a malformed message."""


def encode(value, depth=0):
    """Convert a plain value to JSON types. Raises NotPlain for other types and beyond MAX_DEPTH levels."""
    if depth > MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {MAX_DEPTH} levels")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return ["int", format(int(value), "x")]
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, dict):
        return ["dict", [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in dict.items(value)]]
    for tag, kind in _CONTAINERS.items():
        if isinstance(value, kind):
            return [tag, [encode(item, depth + 1) for item in kind.__iter__(value)]]
    raise NotPlain(f"a value of type {type(value).__name__}")


def decode(tree, depth=0):
    """Invert `encode`. Raises NotPlain for anything that `encode` does not write."""
    if depth > MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {MAX_DEPTH} levels")
    if tree is None or isinstance(tree, (bool, str)):
        return tree
    try:
        tag, payload = tree
        if tag == "int":
            return int(payload, 16)
        if tag == "float":
            return float.fromhex(payload)
        if tag == "bytes":
            return bytes.fromhex(payload)
        if tag == "dict":
            return {decode(k, depth + 1): decode(v, depth + 1) for k, v in payload}
        return _CONTAINERS[tag](decode(item, depth + 1) for item in payload)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise NotPlain(f"a malformed value ({error})") from None


def pack(message):
    """Serialise JSON types into a frame. Raises NotPlain beyond MAX_BYTES."""
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES:
        raise NotPlain(f"a value of {len(data)} bytes (limit {MAX_BYTES})")
    return _LENGTH.pack(len(data)) + data


def unpack(read):
    """Parse the next frame. `read(n)` returns n bytes; if fewer, the other side has ended, an EOFError.

    Raises NotPlain for an invalid frame.
    """

    def exactly(count):
        data = read(count)
        if len(data) < count:
            raise EOFError("the other side is gone")
        return data

    (length,) = _LENGTH.unpack(exactly(_LENGTH.size))
    if length > MAX_BYTES:
        raise NotPlain(f"a value of {length} bytes (limit {MAX_BYTES})")
    try:
        return json.loads(exactly(length))
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"a malformed message ({type(error).__name__})") from None
