"""The rules of a shape: what is required, types, values, lengths, ranges and patterns.

Lengths of strings are counted in characters. A pattern must match the whole of a string, which is how
AWS's services apply them, whether or not it has anchors."""

import re
import sys
import unicodedata
import warnings
from datetime import datetime
from functools import cache

TYPES = {
    "structure": dict, "list": list, "map": dict, "string": str, "boolean": bool, "integer": int, "long": int,
    "float": (int, float), "double": (int, float), "blob": (bytes, str), "timestamp": datetime,
}
BITS = {"integer": 31, "long": 63}
# What Java's regular expressions call otherwise (java.util.regex.Pattern, "POSIX character classes").
POSIX = {
    "Alpha": "A-Za-z", "Digit": "0-9", "IsDigit": r"\d", "Alnum": "A-Za-z0-9", "Upper": "A-Z", "Lower": "a-z",
    "Punct": r"!-/:-@\[-`{-~", "Graph": "!-~", "Print": " -~", "Blank": r" \t", "Space": r"\s", "ASCII": r"\x00-\x7f",
    "XDigit": "0-9A-Fa-f", "Cntrl": r"\x00-\x1f\x7f",
}


class Rules:
    """Walks values along their shapes and collects what breaks a rule as (path, rule, value)."""

    def __init__(self):
        self.broken, self.deprecated = [], []
        self.checked = 0
        self.skipped = {}

    def value(self, shape, value, path):
        self.checked += 1
        kind = shape.type_name
        if shape.metadata.get("document"):
            return
        kinds = TYPES.get(kind, object)
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and kind != "boolean")
        if kind in ("float", "double") and value in ("NaN", "Infinity", "-Infinity"):
            wrong = False
        if wrong:
            self.broken.append((path, f"type {kind}", value))
        elif kind == "structure":
            self.structure(shape, value, path)
        elif kind == "list":
            self.size(shape, len(value), path, value)
            for index, item in enumerate(value):
                self.value(shape.member, item, f"{path}[{index}]")
        elif kind == "map":
            self.size(shape, len(value), path, value)
            for key, item in value.items():
                self.value(shape.key, key, f"{path}.{key}(key)")
                self.value(shape.value, item, f"{path}.{key}")
        elif kind == "string":
            self.string(shape, value, path)
        elif kind == "blob":
            self.size(shape, len(value), path, value)
        elif kind in ("integer", "long", "float", "double") and not isinstance(value, str):
            self.size(shape, value, path, value)
            bits = BITS.get(kind)
            if bits and not -(2**bits) <= value < 2**bits:
                self.broken.append((path, f"{bits + 1} bits", value))

    def structure(self, shape, value, path):
        for name in shape.required_members:
            if name not in value:
                self.broken.append((f"{path}.{name}", "required", None))
        if shape.metadata.get("union") and len(value) != 1:
            self.broken.append((path, "one member of a union", sorted(value)))
        for name, item in value.items():
            if name not in shape.members:
                # The body was no structure at all.
                self.broken.append((f"{path}.{name}", "type structure", item))
                continue
            # botocore keeps this one to itself.
            if shape._shape_model["members"][name].get("deprecated"):
                self.deprecated.append(f"{path}.{name}")
            self.value(shape.members[name], item, f"{path}.{name}")

    def string(self, shape, value, path):
        self.size(shape, len(value), path, value)
        allowed = shape.metadata.get("enum")
        if allowed and value not in allowed:
            self.broken.append((path, f"enum {'|'.join(allowed[:12])}", value))
        pattern = shape.metadata.get("pattern")
        if not pattern:
            return
        compiled = compile_pattern(pattern)
        if compiled is None:
            self.skipped[pattern] = self.skipped.get(pattern, 0) + 1
        elif not compiled.fullmatch(value):
            self.broken.append((path, f"pattern {pattern}", value))

    def size(self, shape, size, path, value):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if low is not None and size < low:
            self.broken.append((path, f"min {low}, is {size}", value))
        if high is not None and size > high:
            self.broken.append((path, f"max {high}, is {size}", value))


@cache
def compile_pattern(pattern):
    """A pattern of a model, written for Java, as Python's; None when there is no telling what it means.

    Adapted are: classes of Unicode and POSIX (`\\p{L}`), code points (`\\x{10FFFF}`), a pair of surrogates
    that stands for all characters beyond the first plane, the end of the text (`\\z`), and a hyphen
    after `\\w`, which begins no range. `\\w`, `\\d` and `\\s` are ASCII in Java. Not adapted are sets in
    sets and their intersections, where Python's answer would be another."""
    text = re.sub(r"\\x\{([0-9A-Fa-f]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", pattern)
    text = re.sub(r"\\u[dD]800\\u[dD][cC]00-\\u[dD][bB][fF]{2}\\u[dD][fF]{3}", r"\\U00010000-\\U0010ffff", text)
    text = text.replace(r"\z", r"\Z").replace(r"\w-", r"\w\-")
    try:
        text = re.sub(r"(\[(?:\\.|[^\]\\])*)", lambda m: properties(m[1], inside=True), text)
        text = properties(text, inside=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(text, re.ASCII)
    except (re.error, KeyError, FutureWarning, DeprecationWarning):
        return None


def properties(text, inside):
    """With `\\p{…}` as ranges, to stand in a set or to be one."""
    def ranges(match):
        found = POSIX.get(match[1]) or category(match[1].removeprefix("Is"))
        return found if inside else f"[{found}]"
    return re.sub(r"\\p\{(\w+)\}", ranges, text)


@cache
def category(name):
    """Ranges of the characters of a general category of Unicode, such as `L` or `Lu`."""
    found, start = [], None
    for code in range(sys.maxunicode + 2):
        holds = code <= sys.maxunicode and unicodedata.category(chr(code)).startswith(name)
        if holds and start is None:
            start = code
        elif not holds and start is not None:
            found.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    if not found:
        raise KeyError(name)
    return "".join(found)
