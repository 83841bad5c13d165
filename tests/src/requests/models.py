"""Which operation of which of AWS's service models a request is meant for."""

import re
from functools import cache
from urllib.parse import parse_qsl, unquote

import botocore.loaders
from botocore.model import ServiceModel

# Directories of botocore's data for signing names and IAM prefixes that are called otherwise.
ALIASES = {
    "elasticloadbalancing": ["elbv2", "elb"],
    "monitoring": ["cloudwatch"],
    "email": ["sesv2", "ses"],
    "tagging": ["resourcegroupstaggingapi"],
    "tag": ["resourcegroupstaggingapi"],
    "servicequotas": ["service-quotas"],
    "AWSCognitoIdentityProviderService": ["cognito-idp"],
}
LOADER = botocore.loaders.create_loader()


class Unknown(Exception):
    """No model has such a service or operation: rule, and what was looked for."""


@cache
def service(name):
    description = LOADER.load_service_model(name, "service-2")
    return ServiceModel(description, service_name=name)


@cache
def known():
    return set(LOADER.list_available_services("service-2"))


def candidates(request):
    """Models that the request may be meant for, by its signature or its IAM prefix."""
    name = request["signedFor"] or request["service"]
    found = [alias for alias in ALIASES.get(name, [name]) if alias in known()]
    if not found:
        raise Unknown("service", name)
    return [service(name) for name in found]


def identify(request):
    """The operation's model and the protocol it is spoken in."""
    target = request["headers"].get("x-amz-target")
    rpc = re.fullmatch(r"/service/([^/]+)/operation/([^/]+)", request["path"])
    form = request["headers"].get("content-type", "").startswith("application/x-www-form-urlencoded")
    if target:
        prefix, _, operation = target.rpartition(".")
        return named(request, "json", operation, targetPrefix=prefix)
    if rpc:
        if request["headers"].get("smithy-protocol") != "rpc-v2-cbor":
            raise Unknown("smithy-protocol", request["headers"].get("smithy-protocol"))
        return named(request, "smithy-rpc-v2-cbor", rpc[2], targetPrefix=rpc[1])
    if form:
        fields = dict(parse_qsl(request["body"].decode(), keep_blank_values=True))
        return named(request, "query", fields.get("Action"), apiVersion=fields.get("Version"))
    model = candidates(request)[0]
    return by_path(request, model), model.metadata["protocol"]


def named(request, protocol, operation, **wanted):
    """The operation of a protocol that names it."""
    ((key, value),) = wanted.items()
    models = [m for m in candidates(request) if m.metadata.get(key) == value]
    if not models:
        raise Unknown(key, value)
    model = models[0]
    spoken = model.metadata.get("protocols", [model.metadata["protocol"]])
    if protocol == "query" and "ec2" in spoken:
        protocol = "ec2"
    if protocol not in spoken:
        raise Unknown("protocol", protocol)
    if protocol == "json":
        # "1.0" or "1.1"; a service with several protocols tells it for its JSON one.
        version = str(model.metadata.get("jsonVersion", "1.0"))
        content = request["headers"].get("content-type")
        if content != f"application/x-amz-json-{version}":
            raise Unknown("content-type", content)
    if operation not in model.operation_names:
        raise Unknown("operation", operation)
    return model.operation_model(operation), protocol


@cache
def routes(model):
    """Method, path, fixed query, and members bound to query and headers of each operation."""
    found = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        pattern = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>.+)", re.escape(path))
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern)
        needs = []
        for member in operation.input_shape.required_members if operation.input_shape else []:
            bound = operation.input_shape.members[member].serialization
            if bound.get("location") in ("querystring", "header"):
                needs.append((bound["location"], bound["name"]))
        fixed = dict(parse_qsl(query, keep_blank_values=True))
        found.append((operation, re.compile(pattern.rstrip("/") + "/?"), fixed, needs))
    return found


def by_path(request, model):
    """The operation of a REST protocol: its path and fixed query fit, and as much as can be of what
    it requires in query and headers is there."""
    query = dict(parse_qsl(request["query"], keep_blank_values=True))
    places = {"querystring": query, "header": request["headers"]}
    best = None
    for operation, path, fixed, needs in routes(model):
        fits = operation.http["method"] == request["method"] and path.fullmatch(request["path"])
        # `x-id` names the operation, but not all SDKs send it.
        named_other = query.get("x-id", operation.name) != operation.name
        missing = [k for k, v in fixed.items() if k != "x-id" and query.get(k) != v]
        if not fits or named_other or missing:
            continue
        there = sum(key.lower() in {k.lower() for k in places[place]} for place, key in needs)
        there -= 2 * (len(needs) - there)
        rank = (there, len(fixed.keys() - {"x-id"}), -len(path.groupindex), not operation.deprecated)
        if best is None or rank > best[0]:
            best = (rank, operation)
    if best is None:
        raise Unknown("operation", f"{request['method']} {request['path']}?{request['query']}")
    return best[1]


def labels(request, operation):
    """The members of the path."""
    path = next(path for known, path, _, _ in routes(operation.service_model) if known.name == operation.name)
    return {name: unquote(value) for name, value in path.fullmatch(request["path"]).groupdict().items()}
