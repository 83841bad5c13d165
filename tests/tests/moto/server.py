"""moto's server with what it lacks put in front, see LACKS; every other answer is moto's own. Run
with the port to listen on."""

import io
import sys
import threading

import stand_in
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple
from werkzeug.wrappers import Request, Response

MOTO = DomainDispatcherApplication(create_backend_app)

# What moto 5.2.5 lacks and no run gets by without: the service that signs the call, what moto does,
# and what does in its place (None: its model is mended). One description that fails ends a plan.
LACKS = [
    ("xray", "groups and sampling rules: 404, only segments are known", stand_in.xray),
    (
        "elasticache",
        "parameter groups, DeleteCacheSubnetGroup: 500 NotImplementedError; the nodes of a "
        "replication group are never described, and a deleted one is `deleting` for ever",
        stand_in.elasticache,
    ),
    ("cloudfront", "response headers policies: 404", stand_in.response_headers_policies),
    ("cloudfront", "distributions lose origin access controls and functions", None),
    (
        "monitoring",
        "rpc-v2-cbor, which the SDK speaks: 404 (getmoto/moto#9195), JSON works; PutDashboard "
        "drops the tags",
        stand_in.cloudwatch,
    ),
    (
        "s3",
        "CreateBucket drops the tags; the root of GetBucketVersioning is not S3's",
        stand_in.s3,
    ),
    (
        "secretsmanager",
        "BatchGetSecretValue fails for one secret that is scheduled for deletion",
        None,
    ),
    ("sqs", "RedriveAllowPolicy is dropped", stand_in.sqs),
    (
        "elasticloadbalancing",
        "a listener without TLS has a TLS policy",
        stand_in.elasticloadbalancing,
    ),
    ("cognito-idp", "DeleteResourceServer: 500 NotImplementedError", stand_in.cognito),
    ("wafv2", "ListResourcesForWebACL: 500 NotImplementedError", stand_in.wafv2),
    (
        "codebuild",
        "UpdateProject: 500 NotImplementedError; CreateProject wants the location of a source and of "
        "artifacts that are CodePipeline's, where AWS ignores it",
        stand_in.codebuild,
    ),
    (
        "codepipeline",
        "GetPipeline has times as texts, where the protocol has numbers; empty bodies",
        stand_in.codepipeline,
    ),
]


class Call:
    def __init__(self, environ):
        self.environ = environ
        self.request = Request(environ)
        credential = self.request.headers.get("authorization", "").partition("Credential=")[2]
        self.service = credential.split("/")[3] if credential.count("/") > 2 else ""
        self.target = self.request.headers.get("x-amz-target", "")
        self.body = self.request.get_data()

    def passed_on(self, body=None, **changes):
        body = self.body if body is None else body
        environ = self.environ | changes
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ = {key: value for key, value in environ.items() if not key.startswith("werkzeug.")}
        return Response.from_app(MOTO, environ, buffered=True)


# moto walks its dictionaries while another thread changes them: one call at a time.
ONE = threading.Lock()


def server(environ, start_response):
    call = Call(environ)
    with ONE:
        answers = (
            in_place(call) for service, _, in_place in LACKS if in_place and service == call.service
        )
        answer = next(filter(None, answers), None) or call.passed_on()
    return answer(environ, start_response)


if __name__ == "__main__":
    run_simple(
        "127.0.0.1", int(sys.argv[1]), server, threaded=True, request_handler=MotoRequestHandler
    )
