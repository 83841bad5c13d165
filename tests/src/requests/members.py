"""The reverse of botocore's serialisers: a request back into the members of its input shape.

Values come out as Python has them; what can't be read as its type stays the text it is, and the rules
tell. What the shape does not know is collected in `unknown`, as paths."""

import base64
import gzip
import json
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import cbor2
from botocore.utils import parse_timestamp

from models import labels

# Query parameters and headers of the protocols themselves (Signature Version 4, SDKs' tracing,
# checksums of a body); all other `x-amz-` headers are members or nothing.
PROTOCOL_QUERY = ("x-id", "X-Amz-")
PROTOCOL_HEADERS = (
    "x-amz-date", "x-amz-content-sha256", "x-amz-user-agent", "x-amz-target", "x-amz-trailer",
    "x-amz-decoded-content-length", "x-amz-checksum-", "x-amz-sdk-checksum-algorithm", "x-amz-api-version",
    "x-amzn-query-mode", "x-amzn-trace-id",
)


class Reader:
    def __init__(self, operation, protocol):
        self.operation, self.protocol = operation, protocol
        self.shape = operation.input_shape
        self.unknown = []

    def read(self, request):
        body = request["body"]
        if body and request["headers"].get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.protocol in ("query", "ec2"):
            fields = parse_qsl(body.decode(), keep_blank_values=True)
            tree = nested([(k, v) for k, v in fields if k not in ("Action", "Version")])
            return self.structure_of_form(self.shape, tree, "")
        if self.protocol == "json":
            return self.plain(self.shape, json.loads(body or b"{}"), "")
        if self.protocol == "smithy-rpc-v2-cbor":
            return self.plain(self.shape, cbor2.loads(body) if body else {}, "")
        return self.rest(request, body)

    # JSON and CBOR

    def plain(self, shape, value, path):
        """Of a value that has types of its own."""
        kind = shape.type_name if shape else "structure"
        if value is None or (shape and shape.metadata.get("document")):
            return value
        if kind == "structure" and isinstance(value, dict):
            return self.structure_of_json(shape, value, path)
        if kind == "list" and isinstance(value, list):
            return [self.plain(shape.member, v, f"{path}[{i}]") for i, v in enumerate(value)]
        if kind == "map" and isinstance(value, dict):
            return {k: self.plain(shape.value, v, f"{path}.{k}") for k, v in value.items()}
        if kind == "blob" and isinstance(value, str) and self.protocol != "smithy-rpc-v2-cbor":
            return decoded(value)
        if kind == "timestamp":
            return moment(value)
        return value

    def structure_of_json(self, shape, value, path):
        members = shape.members.items() if shape else []
        names = {member.serialization.get("name", name): (name, member) for name, member in members}
        read = {}
        for key, item in value.items():
            if key in names:
                name, member = names[key]
                if item is not None:
                    read[name] = self.plain(member, item, f"{path}.{name}")
            else:
                self.unknown.append(f"{path}.{key}")
        return read

    # The query protocols

    def form_name(self, shape, name):
        """As `EC2Serializer._get_serialized_name` and its parent's."""
        if self.protocol == "query":
            return shape.serialization.get("name", name)
        name = shape.serialization.get("name", name)
        return shape.serialization.get("queryName", name[0].upper() + name[1:])

    def structure_of_form(self, shape, tree, path):
        if isinstance(tree, str):
            return {} if tree == "" else tree
        read, known = {}, set()
        for name, member in shape.members.items() if shape else []:
            key = self.form_name(member, name)
            flat = member.serialization.get("flattened") and self.protocol == "query"
            if flat and member.type_name == "list":
                key = member.member.serialization.get("name", key)
            if key in tree:
                known.add(key)
                read[name] = self.of_form(member, tree[key], f"{path}.{name}")
        self.unknown += [f"{path}.{key}" for key in tree if key not in known]
        return read

    def of_form(self, shape, tree, path):
        kind = shape.type_name
        if kind == "structure":
            return self.structure_of_form(shape, tree, path)
        if kind not in ("list", "map"):
            return scalar(shape, tree) if isinstance(tree, str) else tree
        if tree == "":
            return [] if kind == "list" else {}
        if isinstance(tree, str):
            return tree
        if self.protocol == "query" and not shape.serialization.get("flattened"):
            entry = "entry" if kind == "map" else shape.member.serialization.get("name", "member")
            self.unknown += [f"{path}.{key}" for key in tree if key != entry]
            tree = tree.get(entry, {})
        numbers = sorted((key for key in tree if key.isdigit()), key=int)
        self.unknown += [f"{path}.{key}" for key in tree if not key.isdigit()]
        if numbers != [str(n + 1) for n in range(len(numbers))]:
            self.unknown.append(f"{path}: numbered {', '.join(numbers)}")
        items = [tree[number] for number in numbers]
        if kind == "list":
            return [self.of_form(shape.member, item, f"{path}[{i}]") for i, item in enumerate(items)]
        key, value = self.form_name(shape.key, "key"), self.form_name(shape.value, "value")
        return {item.get(key): self.of_form(shape.value, item.get(value, ""), path) for item in items}

    # REST

    def rest(self, request, body):
        members = self.shape.members if self.shape else {}
        bound = {}
        for name, member in members.items():
            place = member.serialization.get("location", "body")
            bound.setdefault(place, {})[name] = (member.serialization.get("name", name), member)
        read = {}
        path = labels(request, self.operation)
        for name, (key, member) in bound.get("uri", {}).items():
            read[name] = scalar(member, path[key])
        self.query(request, bound.get("querystring", {}), read)
        self.headers(request["headers"], bound, read)
        payload = self.shape.serialization.get("payload") if self.shape else None
        if request["body"] is None:
            # An object's bytes, which the gateway passed on unread.
            read.update({payload: b""} if payload else {})
        elif payload and members[payload].type_name in ("blob", "string"):
            read[payload] = body if members[payload].type_name == "blob" else body.decode()
        elif payload:
            if body:
                read[payload] = self.document(members[payload], body, f".{payload}")
        elif body and bound.get("body"):
            rest = self.document(self.shape, body, "")
            read.update(rest if isinstance(rest, dict) else {"": rest})
        elif body.strip() not in (b"", b"{}"):
            self.unknown.append(f": a body of {len(body)} bytes")
        return read

    def query(self, request, bound, read):
        fixed = self.operation.http["requestUri"].partition("?")[2]
        fixed = dict(parse_qsl(fixed, keep_blank_values=True))
        given = {}
        for key, value in parse_qsl(request["query"], keep_blank_values=True):
            given.setdefault(key, []).append(value)
        for name, (key, member) in bound.items():
            if key in given and member.type_name == "list":
                read[name] = [scalar(member.member, value) for value in given.pop(key)]
            elif key in given:
                read[name] = scalar(member, given.pop(key)[0])
        maps = [name for name, (_, member) in bound.items() if member.type_name == "map"]
        for key, values in given.items():
            if key in fixed or key.startswith(PROTOCOL_QUERY):
                continue
            if maps:
                read.setdefault(maps[0], {})[key] = values[0]
            else:
                self.unknown.append(f"?{key}")

    def headers(self, headers, bound, read):
        known = set()
        for name, (key, member) in bound.get("header", {}).items():
            known.add(key.lower())
            if key.lower() in headers:
                value = headers[key.lower()]
                texts = value.split(",") if member.type_name == "list" else []
                read[name] = [scalar(member.member, text.strip()) for text in texts] or scalar(member, value)
        for name, (prefix, _) in bound.get("headers", {}).items():
            taken = {k[len(prefix):]: v for k, v in headers.items() if k.startswith(prefix.lower())}
            known |= {prefix.lower() + key for key in taken}
            if taken:
                read[name] = taken
        for key in headers:
            if key.startswith("x-amz-") and key not in known and not key.startswith(PROTOCOL_HEADERS):
                self.unknown.append(f"header {key}")

    def document(self, shape, body, path):
        if self.protocol == "rest-json":
            return self.plain(shape, json.loads(body), path)
        root = ElementTree.fromstring(body)
        if local(root.tag) != shape.serialization.get("name", shape.name):
            self.unknown.append(f"{path}<{local(root.tag)}>")
        return self.of_xml(shape, root, path)

    def of_xml(self, shape, element, path):
        kind = shape.type_name
        if kind == "structure":
            return self.structure_of_xml(shape, element, path)
        if kind == "list":
            return self.list_of_xml(shape, list(element), shape.member.serialization.get("name", "member"), path)
        if kind == "map":
            return self.map_of_xml(shape, [e for e in element if local(e.tag) == "entry"])
        self.unknown += [f"{path}.{local(child.tag)}" for child in element]
        return scalar(shape, element.text or "")

    def structure_of_xml(self, shape, element, path):
        children = {}
        for child in element:
            children.setdefault(local(child.tag), []).append(child)
        read = {}
        for name, member in shape.members.items():
            key = member.serialization.get("name", name)
            flat = member.serialization.get("flattened")
            if member.serialization.get("location"):
                continue
            if member.serialization.get("xmlAttribute"):
                # Qualified as `xsi:type` in the model.
                values = [v for k, v in element.attrib.items() if local(k) == key.split(":")[-1]]
                read.update({name: scalar(member, v) for v in values})
                continue
            if flat and member.type_name == "list":
                key = member.serialization.get("name") or member.member.serialization.get("name", name)
            if key not in children:
                continue
            found = children.pop(key)
            if flat and member.type_name == "list":
                read[name] = self.list_of_xml(member, found, key, f"{path}.{name}")
            elif flat:
                read[name] = self.map_of_xml(member, found)
            else:
                read[name] = self.of_xml(member, found[0], f"{path}.{name}")
                self.unknown += [f"{path}.{name}: twice"] * (len(found) > 1)
        self.unknown += [f"{path}.{key}" for key in children]
        return read

    def list_of_xml(self, shape, elements, name, path):
        wrong = {local(e.tag) for e in elements if local(e.tag) != name}
        self.unknown += [f"{path}.{key}" for key in sorted(wrong)]
        return [self.of_xml(shape.member, e, f"{path}[{i}]") for i, e in enumerate(elements)]

    def map_of_xml(self, shape, entries):
        names = (shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value"))
        read = {}
        for entry in entries:
            texts = {local(child.tag): child for child in entry}
            read[texts[names[0]].text or ""] = self.of_xml(shape.value, texts[names[1]], "")
        return read


def nested(fields):
    """`A.B.1=x` as a tree of dictionaries."""
    tree = {}
    for key, value in fields:
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = value
    return tree


def local(tag):
    return tag.rpartition("}")[2]


def scalar(shape, text):
    """A scalar of a protocol in which everything is text."""
    kind = shape.type_name
    try:
        if kind == "boolean":
            return {"true": True, "false": False}.get(text, text)
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
    except ValueError:
        return text
    if kind == "blob":
        return decoded(text)
    return moment(text) if kind == "timestamp" else text


def decoded(text):
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text


def moment(value):
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        return parse_timestamp(value)
    except (ValueError, OverflowError):
        return value
