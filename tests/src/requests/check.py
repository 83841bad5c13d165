"""Holds the requests that the sandbox's gateway has written down against AWS's own service models, as
botocore carries them.

    python check.py requests.jsonl

One line for each violation, then what was looked at; exit 1 when there is a violation."""

import base64
import json
import sys
from collections import Counter

import cbor2
from members import Reader
from models import Unknown, identify
from rules import Rules

# Where AWS's documentation contradicts its model: (service, operation, member, rule) and why.
KNOWN = {}


def load(line):
    """A line of the file, with its headers by name and its body as bytes."""
    request = json.loads(line)
    headers = {}
    for name, value in request["headers"]:
        name = name.lower()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    body = request["body"]
    return {**request, "headers": headers, "body": None if body is None else base64.b64decode(body)}


def check(request, rules):
    """The operation, and the violations of one request as (member, rule, value)."""
    name = f"{request['service']} {request['operation']}"
    try:
        operation, protocol = identify(request)
    except Unknown as unknown:
        return name, [("", *unknown.args)]
    name = f"{operation.service_model.service_name} {operation.name}"
    if operation.deprecated:
        rules.deprecated.append("")
    reader = Reader(operation, protocol)
    try:
        members = reader.read(request)
    except (ValueError, SyntaxError, KeyError, cbor2.CBORError) as error:
        return name, [("", "a body that can be read", repr(error))]
    broken = [(path, "no such member", None) for path in reader.unknown]
    rules.broken = []
    if operation.input_shape:
        rules.value(operation.input_shape, members, "")
    broken += rules.broken
    return name, [(path.lstrip("."), rule, value) for path, rule, value in broken]


def short(value):
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text)} characters)"


def main(path):
    rules, operations, sources = Rules(), Counter(), Counter()
    violations, deprecated, excused = Counter(), Counter(), Counter()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            request = load(line)
            rules.deprecated = []
            name, broken = check(request, rules)
            operations[name] += 1
            sources[request["from"]] += 1
            deprecated.update(f"{name} {member.lstrip('.')}".strip() for member in rules.deprecated)
            for member, rule, value in broken:
                if (*name.split(" ", 1), member, rule) in KNOWN:
                    excused[f"{name} {member}: {rule}"] += 1
                else:
                    violations[f"{name} {member}: {rule}: {short(value)}"] += 1
    for text, count in violations.items():
        print(f"violation: {text}" + (f" ({count} times)" if count > 1 else ""))
    for title, notes in [("deprecated", deprecated), ("excused", excused), ("pattern skipped", Counter(rules.skipped))]:
        for text, count in notes.items():
            print(f"{title}: {text} ({count} times)")
    origin = ", ".join(f"{count} from {source}" for source, count in sorted(sources.items()))
    print(
        f"{operations.total()} requests ({origin}) of {len(operations)} operations, {rules.checked} members checked, "
        f"{violations.total()} violations, {len(rules.skipped)} patterns skipped"
    )
    return 1 if violations or not operations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
