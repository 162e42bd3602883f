"""A local S3 server: the requests that TensorStore's driver makes (GET, HEAD, PUT, DELETE, ListObjectsV2), on real HTTP, objects in memory.

Conditional writes follow S3: `If-None-Match: *` creates, `If-Match: ETAG` replaces, else 412. Signatures are not verified, only the access key.
GET honors `Range`. It also serves plain `http://host:port/bucket/key` reads.
"""
import contextlib
import hashlib
import http.server
import re
import threading
import urllib.parse
from xml.sax import saxutils

KEY = "test-access-key"


class Server(http.server.ThreadingHTTPServer):
    """Attributes: `buckets` {name: {key: bytes}}, `log` [(method, key, status)], `before` called with (method, key) ahead of every request."""

    daemon_threads = True

    def __init__(self, *buckets):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets, self.log, self.lock = {name: {} for name in buckets}, [], threading.RLock()
        self.before, self.access_key = lambda method, key: None, KEY

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self):
        """Environment variables with which TensorStore and the AWS tools use this server."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true"}


@contextlib.contextmanager
def serve(*buckets):
    """A running `Server`."""
    with Server(*buckets) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", 1 << 16  # unbuffered, headers and body in two packets wait 40 ms for an acknowledgment

    def _answer(self, status, body=b"", **headers):
        self.server.log.append((self.command, self._key, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Length", headers.get("size") or str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def _error(self, status, code):
        self._answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), Content_Type="application/xml")

    def _handle(self):
        parts = urllib.parse.urlsplit(self.path)
        bucket, _, self._key = urllib.parse.unquote(parts.path.lstrip("/")).partition("/")
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.before(self.command, self._key)
        credential = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        if credential and credential[1] != self.server.access_key:
            return self._error(403, "InvalidAccessKeyId")
        with self.server.lock:
            objects = self.server.buckets.get(bucket)
            if objects is None:
                return self._error(404, "NoSuchBucket")
            if not self._key:
                return self._list(objects, query) if self.command == "GET" else self._answer(200, x_amz_bucket_region="us-east-1")
            return getattr(self, f"_{self.command.lower()}")(objects, self._key, body)

    do_GET = do_HEAD = do_PUT = do_DELETE = _handle

    def _get(self, objects, key, body):
        if key not in objects:
            return self._error(404, "NoSuchKey")
        content, tag = objects[key], _tag(objects[key])
        if self.headers.get("If-None-Match") == tag:
            return self._answer(304, ETag=tag)
        if self.headers.get("If-Match") not in (None, "*", tag):
            return self._error(412, "PreconditionFailed")
        if (span := self.headers.get("Range")) and (found := re.fullmatch(r"bytes=(\d*)-(\d*)", span)):
            first, last = found.groups()
            start = int(first) if first else max(len(content) - int(last), 0)
            stop = min(int(last) + 1 if first and last else len(content), len(content))
            if start >= len(content):
                return self._error(416, "InvalidRange")
            return self._answer(206, content[start:stop], ETag=tag, Content_Range=f"bytes {start}-{stop - 1}/{len(content)}")
        return self._answer(200, content, ETag=tag)

    def _head(self, objects, key, body):
        if key not in objects:
            return self._answer(404)
        return self._answer(200, ETag=_tag(objects[key]), size=str(len(objects[key])))

    def _put(self, objects, key, body):
        tag = _tag(objects[key]) if key in objects else None
        if self.headers.get("If-None-Match") == "*" and tag is not None:
            return self._error(412, "PreconditionFailed")
        if self.headers.get("If-Match") not in (None, tag):
            return self._error(412, "PreconditionFailed")
        objects[key] = body
        return self._answer(200, ETag=_tag(body))

    def _delete(self, objects, key, body):
        objects.pop(key, None)
        return self._answer(204)

    def _list(self, objects, query):
        keys = [key for key in sorted(objects) if key.startswith(query.get("prefix", "")) and key > query.get("continuation-token", query.get("start-after", ""))]
        page, rest = keys[:1000], keys[1000:]
        listed = "".join(f"<Contents><Key>{saxutils.escape(key)}</Key><Size>{len(objects[key])}</Size></Contents>" for key in page)
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{saxutils.escape(page[-1])}</NextContinuationToken>" if rest else "<IsTruncated>false</IsTruncated>"
        return self._answer(200, f"<?xml version='1.0'?><ListBucketResult>{more}<KeyCount>{len(page)}</KeyCount>{listed}</ListBucketResult>".encode())

    def log_message(self, *args):
        pass


def _tag(content):
    return f'"{hashlib.md5(content).hexdigest()}"'
