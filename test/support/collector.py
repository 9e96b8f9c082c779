"""A collector by others: OpenTelemetry's own message classes and Google's protobuf judge each report.

usage: collector.py PORT. Prints each report as a line of JSON; what they refuse is answered by 400.
Answers in chunks, in the encoding of the request, as a partial success.
"""

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = self.headers["content-type"]
        encoding = self.headers.get("content-encoding", "")
        answer = service.ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = 1
        try:
            if encoding == "gzip":
                body = gzip.decompress(body)
            if kind == "application/x-protobuf":
                request = service.ExportMetricsServiceRequest.FromString(body)
                reply = answer.SerializeToString()
            else:
                request = json_format.Parse(body, service.ExportMetricsServiceRequest())
                reply = json_format.MessageToJson(answer).encode()
            report = json_format.MessageToDict(request)
            status = 200
        except Exception as error:
            report, reply, status = {"error": str(error)}, b"", 400
        client = self.headers.get("x-client", "")
        line = {"kind": kind, "encoding": encoding, "client": client, "path": self.path}
        print(json.dumps({**line, "report": report}), flush=True)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (reply[:1], reply[1:]):
            if part:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Collector)
print(json.dumps({"listening": True}), flush=True)
server.serve_forever()
