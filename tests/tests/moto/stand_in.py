"""What answers in moto's place, or mends its models; `LACKS` in server.py says why. Each function
takes a call of the service that it is named after, and gives None for what moto answers well."""

import datetime
import json
import re
import uuid
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import cbor2
from moto.cloudfront.models import DefaultCacheBehaviour, Origin
from moto.cloudwatch.models import cloudwatch_backends
from moto.codebuild.models import codebuild_backends
from moto.cognitoidp.models import cognitoidp_backends
from moto.elasticache.models import elasticache_backends
from moto.secretsmanager.models import SecretsManagerBackend, _matches
from moto.wafv2.models import wafv2_backends
from werkzeug.wrappers import Response

ACCOUNT, REGION = "123456789012", "us-east-1"
TAGS = {}


def tag(arn, tags):
    TAGS.setdefault(arn, {}).update({tag["Key"]: tag["Value"] for tag in tags or []})


def tags_of(arn):
    return [{"Key": key, "Value": value} for key, value in TAGS.get(arn, {}).items()]


# X-Ray

GROUPS, RULES = {}, {}


def xray(call):
    body = json.loads(call.body or b"{}")
    answer = {}
    match call.request.path.strip("/"):
        case "ListTagsForResource":
            answer = {"Tags": tags_of(body["ResourceARN"])}
        case "TagResource":
            tag(body["ResourceARN"], body["Tags"])
        case "Groups":
            answer = {"Groups": list(GROUPS.values())}
        case "CreateGroup":
            name = body["GroupName"]
            arn = f"arn:aws:xray:{REGION}:{ACCOUNT}:group/{name}/{uuid.uuid4().hex[:26].upper()}"
            tag(arn, body.pop("Tags", None))
            GROUPS[arn] = body | {"GroupARN": arn}
            answer = {"Group": GROUPS[arn]}
        case "UpdateGroup":
            GROUPS[body["GroupARN"]].update(body)
            answer = {"Group": GROUPS[body["GroupARN"]]}
        case "DeleteGroup":
            del GROUPS[body["GroupARN"]]
        case "GetSamplingRules":
            answer = {"SamplingRuleRecords": [{"SamplingRule": rule} for rule in RULES.values()]}
        case "CreateSamplingRule":
            rule = body["SamplingRule"]
            arn = f"arn:aws:xray:{REGION}:{ACCOUNT}:sampling-rule/{rule['RuleName']}"
            tag(arn, body.get("Tags"))
            RULES[arn] = rule | {"RuleARN": arn}
            answer = {"SamplingRuleRecord": {"SamplingRule": RULES[arn]}}
        case "UpdateSamplingRule":
            update = body["SamplingRuleUpdate"]
            RULES[update["RuleARN"]].update(update)
            answer = {"SamplingRuleRecord": {"SamplingRule": RULES[update["RuleARN"]]}}
        case "DeleteSamplingRule":
            answer = {"SamplingRuleRecord": {"SamplingRule": RULES.pop(body["RuleARN"])}}
        case _:
            return None
    return Response(json.dumps(answer), content_type="application/json")


# ElastiCache

PARAMETER_GROUPS, REPLICATION_GROUPS = {}, {}


def elasticache(call):
    form = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
    operation, name = form["Action"], form.get("CacheParameterGroupName")
    backend = elasticache_backends[ACCOUNT][REGION]
    answer = ""
    match operation:
        case "CreateCacheParameterGroup":
            arn = f"arn:aws:elasticache:{REGION}:{ACCOUNT}:parametergroup:{name}"
            members = ("CacheParameterGroupName", "CacheParameterGroupFamily", "Description")
            group = {member: form[member] for member in members} | {"ARN": arn}
            PARAMETER_GROUPS[name] = group, {"maxmemory-policy": "volatile-lru"}
            tag(arn, form_tags(form))
            answer = element("CacheParameterGroup", group)
        case "DescribeCacheParameterGroups":
            groups = (
                element("CacheParameterGroup", group) for group, _ in PARAMETER_GROUPS.values()
            )
            answer = f"<CacheParameterGroups>{''.join(groups)}</CacheParameterGroups>"
        case "ModifyCacheParameterGroup":
            for key, value in form.items():
                if key.endswith(".ParameterName"):
                    PARAMETER_GROUPS[name][1][value] = form[key.removesuffix("Name") + "Value"]
        case "DescribeCacheParameters":
            parameters = (
                element("Parameter", {"ParameterName": key, "ParameterValue": value})
                for key, value in PARAMETER_GROUPS[name][1].items()
            )
            answer = f"<Parameters>{''.join(parameters)}</Parameters>"
        case "DeleteCacheParameterGroup":
            del PARAMETER_GROUPS[name]
        case "ListTagsForResource" | "AddTagsToResource" if form["ResourceName"] in TAGS:
            tag(form["ResourceName"], form_tags(form))
            tags = (element("Tag", tag) for tag in tags_of(form["ResourceName"]))
            answer = f"<TagList>{''.join(tags)}</TagList>"
        case "DeleteCacheSubnetGroup":
            del backend.cache_subnet_groups[form["CacheSubnetGroupName"]]
        case "CreateReplicationGroup" | "ModifyReplicationGroup":
            REPLICATION_GROUPS.setdefault(form["ReplicationGroupId"], {}).update(form)
            return call.passed_on()
        case "DescribeCacheClusters":
            nodes = (
                node(member, REPLICATION_GROUPS[id])
                for id, group in backend.replication_groups.items()
                for member in group.member_clusters
            )
            answer = f"<CacheClusters>{''.join(nodes)}</CacheClusters>"
        case "DeleteReplicationGroup":
            answered = call.passed_on()
            backend.replication_groups.pop(form["ReplicationGroupId"], None)
            return answered
        case _:
            return None
    result = f"<{operation}Result>{answer}</{operation}Result>"
    return Response(f"<{operation}Response>{result}</{operation}Response>", content_type="text/xml")


def node(id, group):
    plain = ("ReplicationGroupId", "Engine", "EngineVersion", "CacheSubnetGroupName")
    members = {member: group[member] for member in plain} | {"CacheClusterId": id}
    parameters = element(
        "CacheParameterGroup", {"CacheParameterGroupName": group["CacheParameterGroupName"]}
    )
    groups = (
        element("member", {"SecurityGroupId": value})
        for key, value in group.items()
        if key.startswith("SecurityGroupIds.")
    )
    inner = element("CacheCluster", members).removesuffix("</CacheCluster>")
    return f"{inner}{parameters}<SecurityGroups>{''.join(groups)}</SecurityGroups></CacheCluster>"


def form_tags(form):
    keys = [key for key in form if re.fullmatch(r"Tags\.Tag\.\d+\.Key", key)]
    return [{"Key": form[key], "Value": form[key.removesuffix("Key") + "Value"]} for key in keys]


def element(name, members):
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in members.items())
    return f"<{name}>{inner}</{name}>"


# CloudFront

POLICIES = {}


def response_headers_policies(call):
    method, path = call.request.method, call.request.path
    if not path.startswith("/2020-05-31/response-headers-policy"):
        return None
    policy = path.rpartition("/")[2]
    if method == "DELETE":
        del POLICIES[policy]
        return Response(status=204)
    if method == "POST":
        policy = str(uuid.uuid4())
    if method in ("POST", "PUT"):
        config = call.body.decode()
        POLICIES[policy] = config[config.index("<ResponseHeadersPolicyConfig") :]
    shown = {
        id: f"<ResponseHeadersPolicy><Id>{id}</Id>"
        f"<LastModifiedTime>2026-01-01T00:00:00Z</LastModifiedTime>{config}</ResponseHeadersPolicy>"
        for id, config in POLICIES.items()
    }
    if policy in shown:
        return Response(
            shown[policy],
            201 if method == "POST" else 200,
            {"ETag": policy},
            content_type="text/xml",
        )
    items = (
        f"<ResponseHeadersPolicySummary><Type>custom</Type>{text}</ResponseHeadersPolicySummary>"
        for text in shown.values()
    )
    text = (
        f"<ResponseHeadersPolicyList><MaxItems>100</MaxItems><Quantity>{len(shown)}</Quantity>"
        f"<Items>{''.join(items)}</Items></ResponseHeadersPolicyList>"
    )
    return Response(text, content_type="text/xml")


def keep(model, attribute, member, default):
    """Has a model of moto keep a member of its configuration that it drops."""
    init = model.__init__

    def keeping(self, config):
        init(self, config)
        setattr(self, attribute, config.get(member, default))

    model.__init__ = keeping


keep(Origin, "origin_access_control_id", "OriginAccessControlId", "")
keep(DefaultCacheBehaviour, "function_associations", "FunctionAssociations", {"Quantity": 0})


# CloudWatch


def cloudwatch(call):
    _, found, operation = call.request.path.partition(
        "/service/GraniteServiceVersion20100801/operation/"
    )
    if not found:
        return None
    request = cbor2.loads(call.body)
    backend = cloudwatch_backends[ACCOUNT][REGION]
    if operation == "PutDashboard" and request["DashboardName"] not in backend.dashboards:
        arn = f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{request['DashboardName']}"
        backend.tagger.delete_all_tags_for_resource(arn)
        backend.tagger.tag_resource(arn, request.get("Tags", []))
    answer = call.passed_on(
        json.dumps(request, default=datetime.datetime.timestamp).encode(),
        PATH_INFO="/",
        RAW_URI="/",
        REQUEST_URI="/",
        CONTENT_TYPE="application/x-amz-json-1.0",
        HTTP_X_AMZ_TARGET=f"GraniteServiceVersion20100801.{operation}",
    )
    body = typed(json.loads(answer.get_data() or b"{}"))
    return Response(
        cbor2.dumps(body, datetime_as_timestamp=True),
        answer.status_code,
        {"smithy-protocol": "rpc-v2-cbor"},
        content_type="application/cbor",
    )


def typed(value, member=""):
    """JSON knows no timestamps, and writes whole numbers alike whatever they are."""
    if isinstance(value, dict):
        return {key: typed(value, key) for key, value in value.items()}
    if isinstance(value, list):
        return [typed(value, member) for value in value]
    if isinstance(value, int | float) and (
        member.endswith("Timestamp") or member == "LastModified"
    ):
        return datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
    return float(value) if member == "Threshold" else value


# S3


def s3(call):
    path, arguments = call.request.path.strip("/"), call.request.args.keys() - {"x-id"}
    if call.request.method == "GET" and arguments == {"versioning"}:
        answer = call.passed_on()
        text = answer.get_data(as_text=True)
        answer.set_data(text.replace("GetBucketVersioningResponse", "VersioningConfiguration"))
        return answer
    tags = re.search(b"<Tags>.*</Tags>", call.body, re.DOTALL)
    if call.request.method == "PUT" and "/" not in path and not arguments and tags:
        answer = call.passed_on()
        if answer.status_code == 200:
            tagging = b"<Tagging>%s</Tagging>" % tags[0].replace(b"Tags>", b"TagSet>")
            call.passed_on(tagging, QUERY_STRING="tagging")
        return answer
    return None


# Secrets Manager

by_id = SecretsManagerBackend.batch_get_secret_value


def of_living(self, secret_id_list=None, filters=None, **page):
    if filters:
        ids = [
            secret.secret_id
            for secret in self.secrets.values()
            if _matches(secret, filters) and not secret.is_deleted()
        ]
        return by_id(self, ids) if ids else ([], [], None)
    return by_id(self, secret_id_list, **page)


SecretsManagerBackend.batch_get_secret_value = of_living


# SQS

REDRIVE_ALLOWED = {}


def sqs(call):
    operation = call.target.removeprefix("AmazonSQS.")
    if operation not in ("CreateQueue", "SetQueueAttributes", "GetQueueAttributes"):
        return None
    body = json.loads(call.body)
    queue = body.get("QueueName") or body["QueueUrl"].rpartition("/")[2]
    policy = body.get("Attributes", {}).get("RedriveAllowPolicy")
    answer = call.passed_on()
    if policy and answer.status_code == 200:
        REDRIVE_ALLOWED[queue] = policy
    if operation == "GetQueueAttributes" and queue in REDRIVE_ALLOWED and answer.status_code == 200:
        attributes = json.loads(answer.get_data())
        attributes["Attributes"]["RedriveAllowPolicy"] = REDRIVE_ALLOWED[queue]
        answer.set_data(json.dumps(attributes))
    return answer


# Elastic Load Balancing


def elasticloadbalancing(call):
    if b"Action=DescribeListeners" not in call.body:
        return None
    answer = call.passed_on()
    text = answer.get_data(as_text=True)
    if "<Protocol>HTTPS</Protocol>" not in text:
        answer.set_data(re.sub("<SslPolicy>.*?</SslPolicy>", "", text))
    return answer


# Cognito, WAF


def cognito(call):
    if not call.target.endswith(".DeleteResourceServer"):
        return None
    body = json.loads(call.body)
    pool = cognitoidp_backends[ACCOUNT][REGION].describe_user_pool(body["UserPoolId"])
    del pool.resource_servers[body["Identifier"]]
    return Response("{}", content_type="application/x-amz-json-1.1")


def wafv2(call):
    if not call.target.endswith(".ListResourcesForWebACL"):
        return None
    acl = wafv2_backends[ACCOUNT][REGION].wacls[json.loads(call.body)["WebACLArn"]]
    body = {"ResourceArns": sorted(set(acl.associated_resources))}
    return Response(json.dumps(body), content_type="application/x-amz-json-1.1")


# CodeBuild, CodePipeline


def codebuild(call):
    operation = call.target.rpartition(".")[2]
    if operation == "CreateProject":
        body = json.loads(call.body)
        body["source"]["location"] = body["artifacts"]["location"] = "CodePipeline"
        return call.passed_on(json.dumps(body).encode())
    if operation == "UpdateProject":
        body = json.loads(call.body)
        project = codebuild_backends[ACCOUNT][REGION].codebuild_projects[body["name"]]
        project.project_metadata.update(body)
        return Response("{}", content_type="application/x-amz-json-1.1")
    return None


def codepipeline(call):
    answer = call.passed_on()
    body = json.loads(answer.get_data() or b"{}")
    if "metadata" in body:
        body["metadata"] = {"pipelineArn": body["metadata"]["pipelineArn"]}
    answer.set_data(json.dumps(body))
    return answer
