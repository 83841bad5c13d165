"""Proves the checker without a sandbox: botocore's own serialisers write requests, which must come back as
the members they were made of; and each rule, broken, must be told.

    python self_test.py [SERVICE…]
"""

import base64
import sys
from datetime import datetime, timezone
from urllib.parse import urlsplit

from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.serialize import create_serializer

import models
from check import check
from members import Reader
from rules import Rules, compile_pattern

# What `bme` and the service call.
SERVICES = [
    "acm", "application-autoscaling", "cloudfront", "cloudwatch", "cognito-idp", "ec2", "ecr", "ecs", "elasticache",
    "elbv2", "iam", "logs", "rds", "route53", "s3", "secretsmanager", "service-quotas", "sns", "sqs", "sts", "wafv2",
    "xray",
]
# They differ from another one by their host only.
TWINS = ["ListDirectoryBuckets"]


def serialised(operation, protocol, members):
    """The request as `check.load` hands it on."""
    service = operation.service_model
    made = create_serializer(protocol, include_validation=False).serialize_to_request(members, operation)
    prepare_request_dict(made, "http://127.0.0.1:4566")
    prepared = create_request_object(made).prepare()
    url = urlsplit(prepared.url)
    body = prepared.body or b""
    return {
        "n": 1, "from": "host", "service": service.service_name, "signedFor": service.signing_name,
        "operation": operation.name, "method": prepared.method, "path": url.path, "query": url.query,
        "headers": {name.lower(): text(value) for name, value in prepared.headers.items()},
        "body": body.encode() if isinstance(body, str) else bytes(body),
    }


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def example(shape, above=()):
    """A value with every member that the shape has; a shape within itself is left out."""
    kind = shape.type_name
    if shape.metadata.get("document"):
        return {"any": [1, "thing"]}
    if kind == "structure":
        members = [(n, m) for n, m in shape.members.items() if m.name not in above and not m.serialization.get("jsonvalue")]
        if shape.metadata.get("union"):
            members = members[:1]
        return {name: example(member, (*above, shape.name)) for name, member in members}
    if kind == "list":
        item = shape.member
        return [] if item.name in above else [example(item, (*above, shape.name))] * 2
    if kind == "map":
        return {} if shape.value.name in above else {example(shape.key): example(shape.value, (*above, shape.name))}
    values = {
        "string": "host" if shape.serialization.get("hostLabel") else (shape.metadata.get("enum") or ["x & y"])[0],
        "boolean": True, "integer": 7, "long": 2**40,
        "float": 1.5, "double": 2.5, "blob": b"\x00bytes", "timestamp": datetime(2026, 11, 23, 21, 11, 51, tzinfo=timezone.utc),
    }
    return values[kind]


def round_trips(name):
    """Every operation of a service in every protocol that it speaks."""
    model, count = models.service(name), 0
    spoken = model.metadata.get("protocols", [model.metadata["protocol"]])
    for operation in map(model.operation_model, model.operation_names):
        for protocol in spoken:
            # A deprecated operation may look like the one that replaces it.
            twin = operation.deprecated and protocol == "rest-xml" or operation.name in TWINS
            if operation.has_event_stream_input or twin:
                continue
            members = example(operation.input_shape) if operation.input_shape else {}
            request = serialised(operation, protocol, members)
            if protocol == "json":
                request["headers"]["content-type"] = f"application/x-amz-json-{model.metadata['jsonVersion']}"
            found, as_protocol = models.identify(request)
            assert (found.name, as_protocol) == (operation.name, protocol), (operation.name, found.name, as_protocol)
            reader = Reader(found, as_protocol)
            read = reader.read(request)
            assert not reader.unknown, (operation.name, protocol, reader.unknown)
            assert read == members, (operation.name, protocol, differing(members, read))
            count += 1
    return count


def differing(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [d for k in sorted(keys) for d in differing(one.get(k), other.get(k), f"{path}.{k}")]
    return [] if one == other else [(path, one, other)]


# A valid request of each protocol, and what is done to it: path, new value (None removes it), and the
# start of the violation that must be told.
CASES = [
    ("ec2", "CreateFlowLogs", {
        "ResourceIds": ["vpc-1"], "ResourceType": "VPC", "TrafficType": "ALL", "LogGroupName": "bme-local-flow-log",
        "DeliverLogsPermissionArn": "arn:aws:iam::000000000000:role/bme-local-flow-log", "MaxAggregationInterval": 60,
        "TagSpecifications": [{"ResourceType": "vpc-flow-log", "Tags": [{"Key": "bme:env", "Value": "local"}]}],
    }, [
        (["ResourceIds"], None, "ResourceIds: required"),
        (["TagSpecifications", 0, "ResourceType"], "flow-log", "TagSpecifications[0].ResourceType: enum"),
        (["MaxAggregationInterval"], "soon", "MaxAggregationInterval: type integer"),
    ]),
    ("iam", "CreateRole", {
        "RoleName": "bme-local-api", "AssumeRolePolicyDocument": "{\n}", "Description": "Role of the API",
        "MaxSessionDuration": 3600, "Tags": [{"Key": "bme:env", "Value": "local"}],
    }, [
        (["AssumeRolePolicyDocument"], None, "AssumeRolePolicyDocument: required"),
        (["RoleName"], "x" * 65, "RoleName: max 64, is 65"),
        (["RoleName"], "bme/api", "RoleName: pattern"),
        (["Description"], "bme’s…", "Description: pattern"),
        (["MaxSessionDuration"], 60, "MaxSessionDuration: min 3600, is 60"),
        (["Tags", 0, "Key"], "", "Tags[0].Key: min 1, is 0"),
        (["Tags"], [{"Key": str(n), "Value": ""} for n in range(51)], "Tags: max 50, is 51"),
    ]),
    ("elbv2", "CreateTargetGroup", {
        "Name": "bme-local-target-group", "Protocol": "HTTP", "Port": 8080, "TargetType": "ip",
        "HealthCheckIntervalSeconds": 5,
    }, [
        (["Name"], None, "Name: required"), (["Port"], 65536, "Port: max 65535"),
        (["HealthCheckIntervalSeconds"], 4, "HealthCheckIntervalSeconds: min 5"),
        (["TargetType"], "task", "TargetType: enum"),
    ]),
    ("ecs", "CreateService", {
        "serviceName": "bme-local-api", "cluster": "bme-local-cluster", "desiredCount": 2, "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "DISABLED"}},
    }, [
        (["serviceName"], None, "serviceName: required"), (["launchType"], "LAMBDA", "launchType: enum"),
        (["desiredCount"], 1.5, "desiredCount: type integer"), (["desiredCount"], 2**31, "desiredCount: 32 bits"),
        (["networkConfiguration", "awsvpcConfiguration", "subnets"], None, "networkConfiguration.awsvpcConfiguration.subnets: required"),
    ]),
    ("sqs", "CreateQueue", {"QueueName": "bme-local-voice", "Attributes": {"VisibilityTimeout": "90"}}, [
        (["QueueName"], None, "QueueName: required"), (["QueueName"], 7, "QueueName: type string"),
        (["Attributes", "Visibility"], "90", "Attributes.Visibility(key): enum"),
    ]),
    ("wafv2", "GetWebACL", {"Name": "bme-local-web-acl", "Scope": "REGIONAL", "Id": "0198c5a4-0000-7000-8000-000000000001"}, [
        (["Name"], "bme local", "Name: pattern"), (["Scope"], "GLOBAL", "Scope: enum"),
    ]),
    ("cloudwatch", "PutMetricAlarm", {
        "AlarmName": "bme-local-api-cpu-alarm", "ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 3,
        "Threshold": 85.0, "Dimensions": [{"Name": "ServiceName", "Value": "bme-local-api"}],
    }, [
        (["AlarmName"], None, "AlarmName: required"), (["EvaluationPeriods"], 0, "EvaluationPeriods: min 1"),
        (["Dimensions", 0, "Value"], "", "Dimensions[0].Value: min 1"), (["Threshold"], "much", "Threshold: type double"),
    ]),
    ("xray", "CreateGroup", {"GroupName": "bme-local", "FilterExpression": "service(\"bme\")"}, [
        (["GroupName"], None, "GroupName: required"), (["GroupName"], "x" * 33, "GroupName: max 32, is 33"),
    ]),
    ("s3", "PutBucketVersioning", {"Bucket": "bme-local-web", "VersioningConfiguration": {"Status": "Enabled"}}, [
        (["VersioningConfiguration"], None, "VersioningConfiguration: required"),
        (["VersioningConfiguration", "Status"], "On", "VersioningConfiguration.Status: enum"),
    ]),
    ("s3", "DeleteObjects", {"Bucket": "bme-local-web", "Delete": {"Objects": [{"Key": "a"}]}}, [
        (["Delete", "Objects", 0, "Key"], "", "Delete.Objects[0].Key: min 1"),
        (["Delete", "Objects", 0, "Key"], None, "Delete.Objects[0].Key: required"),
    ]),
    ("cloudfront", "CreateInvalidation", {
        "DistributionId": "E1", "InvalidationBatch": {"Paths": {"Quantity": 1, "Items": ["/*"]}, "CallerReference": "1"},
    }, [
        (["InvalidationBatch", "CallerReference"], None, "InvalidationBatch.CallerReference: required"),
        (["InvalidationBatch", "Paths", "Quantity"], "one", "InvalidationBatch.Paths.Quantity: type integer"),
    ]),
]

# A member that no model has, put into the request's own form.
UNKNOWN = [
    ("iam", "ListRoles", {}, {"body": b"Action=ListRoles&Version=2010-05-08&Colour=red"}, "Colour: no such member"),
    ("ec2", "DescribeVpcs", {}, {"body": b"Action=DescribeVpcs&Version=2016-11-15&Filter.1.Names=a"},
     "Filters[0].Names: no such member"),
    ("iam", "ListRoles", {}, {"body": b"Action=ListRoles&Version=2010-05-07"}, ": apiVersion"),
    ("ecs", "ListClusters", {}, {"body": b'{"colour":"red"}'}, "colour: no such member"),
    ("cloudwatch", "DescribeAlarms", {}, {"body": b"\xa1\x61x\x01"}, "x: no such member"),
    ("xray", "GetGroup", {}, {"body": b'{"Colour":"red"}'}, "Colour: no such member"),
    ("s3", "PutBucketVersioning", {"Bucket": "b", "VersioningConfiguration": {}},
     {"body": b"<VersioningConfiguration><Colour/></VersioningConfiguration>"},
     "VersioningConfiguration.Colour: no such member"),
    ("s3", "ListBuckets", {}, {"query": "colour=red"}, "?colour: no such member"),
    ("s3", "GetObject", {"Bucket": "b", "Key": "a/b"}, {"headers": {"x-amz-colour": "red"}}, "header x-amz-colour: no such member"),
    ("ecs", "ListClusters", {}, {"headers": {"x-amz-target": "AmazonEC2ContainerServiceV20141113.ListAll",
     "content-type": "application/x-amz-json-1.1"}}, ": operation"),
]


def broken(request):
    return [f"{member}: {rule}" for member, rule, _ in check(request, Rules())[1]]


def is_told(violation, told):
    """A text that is too short mostly does not fit its pattern either: of that member, and no other."""
    member = violation.split(": ")[0]
    return any(t.startswith(violation) for t in told) and all(t.split(": ")[0] == member for t in told)


def change(members, path, value):
    *parents, last = path
    if not parents:
        kept = {**members, last: value} if isinstance(members, dict) else [value if i == last else m for i, m in enumerate(members)]
    else:
        inner = change(members[parents[0]], path[1:], value)
        return change(members, path[:1], inner)
    return {k: v for k, v in kept.items() if v is not None} if isinstance(kept, dict) else kept


def rules_are_told():
    count = 0
    for name, operation, members, mutations in CASES:
        operation = models.service(name).operation_model(operation)
        protocol = operation.service_model.metadata["protocol"]
        told = broken(serialised(operation, protocol, members))
        assert not told, (name, operation.name, told)
        for path, value, violation in mutations:
            request = serialised_loosely(operation, protocol, change(members, path, value))
            told = broken(request)
            assert is_told(violation, told), (name, operation.name, violation, told)
            count += 1
    for name, operation, members, changes, violation in UNKNOWN:
        operation = models.service(name).operation_model(operation)
        request = serialised(operation, operation.service_model.metadata["protocol"], members)
        told = broken({**request, **changes, "headers": {**request["headers"], **changes.get("headers", {})}})
        assert is_told(violation, told), (name, operation.name, violation, told)
        count += 1
    return count


def serialised_loosely(operation, protocol, members):
    """With values of the wrong type, which only some serialisers write."""
    if protocol == "smithy-rpc-v2-cbor":
        import cbor2
        request = serialised(operation, protocol, {})
        return {**request, "body": cbor2.dumps(members)}
    return serialised(operation, protocol, members)


def patterns():
    assert compile_pattern(r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*").fullmatch("Größe 1")
    assert not compile_pattern(r"\p{Lu}+").fullmatch("a")
    assert compile_pattern(r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*").fullmatch("😀")
    assert not compile_pattern(r"[\w]+").fullmatch("ü")
    assert compile_pattern(r"[a-z&&[^b]]") is None


if __name__ == "__main__":
    patterns()
    print(f"rules: {rules_are_told()} violations told")
    for service in sys.argv[1:] or SERVICES:
        print(f"{service}: {round_trips(service)} requests came back as they were made")
