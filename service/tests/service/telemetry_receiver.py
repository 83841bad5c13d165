"""Receives telemetry as others do: OTLP with the messages that OpenTelemetry publishes for Python, Sentry's envelopes with the
parser of its SDK. What they cannot read is refused.

Standard output: the port. GET /received: everything so far, read and raw. It ends with its standard input.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sentry_sdk.envelope import Envelope

received = {"spans": [], "metrics": [], "events": [], "refused": [], "raw": []}
lock = threading.Lock()


def attributes(pairs):
    values = ((pair.key, pair.value) for pair in pairs)
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values}


def take_spans(body):
    for process in traces.ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = attributes(process.resource.attributes)
        for span in (span for scope in process.scope_spans for span in scope.spans):
            yield "spans", {
                "name": span.name,
                "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                "failed": span.status.code == Status.STATUS_CODE_ERROR,
                "trace": span.trace_id.hex(),
                "id": span.span_id.hex(),
                "parent": span.parent_span_id.hex(),
                "nanoseconds": span.end_time_unix_nano - span.start_time_unix_nano,
                "events": len(span.events),
                "attributes": attributes(span.attributes),
                "service": resource["service.name"],
            }


def take_metrics(body):
    for process in metrics.ExportMetricsServiceRequest.FromString(body).resource_metrics:
        service = attributes(process.resource.attributes)["service.name"]
        for metric in (metric for scope in process.scope_metrics for metric in scope.metrics):
            yield "metrics", {"name": metric.name, "service": service, "unit": metric.unit}


def take_events(body):
    envelope = Envelope.deserialize(body)
    for item in envelope.items:
        event = item.get_event()
        if event is None or UUID(envelope.headers["event_id"]) != UUID(event["event_id"]):
            raise ValueError(f"an item of type {item.type} in {envelope.headers}")
        yield "events", event


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with lock:
            self.answer(200, json.dumps(received).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = self.headers["content-type"]
        try:
            if (self.path, kind) == ("/v1/traces", "application/x-protobuf"):
                taken, answer = list(take_spans(body)), traces.ExportTraceServiceResponse().SerializeToString()
            elif (self.path, kind) == ("/v1/metrics", "application/x-protobuf"):
                taken, answer = list(take_metrics(body)), metrics.ExportMetricsServiceResponse().SerializeToString()
            elif (self.path, kind) == ("/api/42/envelope/", "application/x-sentry-envelope"):
                if "sentry_key=key" not in self.headers["x-sentry-auth"]:
                    raise ValueError("not authenticated")
                taken, answer = list(take_events(body)), b"{}"
            else:
                raise ValueError(f"nothing that sends {kind} to {self.path} is known")
        except Exception as error:
            with lock:
                received["refused"].append(repr(error))
            return self.answer(400, b"")
        with lock:
            # Whatever the text's encoding is, ASCII is found in it.
            received["raw"].append(f"{self.headers}{body.decode('latin-1')}")
            for name, thing in taken:
                received[name].append(thing)
        self.answer(200, answer)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
