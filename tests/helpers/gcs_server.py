"""A local server of Google Cloud Storage's JSON API: the requests of TensorStore's driver, with generations and their preconditions; objects in memory.

`python -m tests.helpers.gcs_server FOLDER` trains a toy run in FOLDER and at gs://bucket/run on it, failed and resumed, and prints a JSON object.
"""
import contextlib
import http.server
import itertools
import json
import os
import re
import sys
import threading
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", 1 << 16
    objects, count, log, refused = {}, itertools.count(1), [], False  # objects: {name: (generation, content)}

    def _answer(self, status, content=b"", kind="application/json", **headers):
        self.log.append((self.command, status))
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def _about(self, name):
        generation, content = self.objects[name]
        return {"name": name, "generation": str(generation), "size": str(len(content)), "metageneration": "1", "bucket": "bucket"}

    def _handle(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)/o(?:/(.+))?", parts.path)
        if type(self).refused:
            return self._answer(403, b'{"error": {"message": "Access denied."}}')
        if found is None or found[2] != "bucket":
            return self._answer(404, b'{"error": {"message": "The specified bucket does not exist."}}')
        name = query.get("name") if found[1] else urllib.parse.unquote(found[3] or "")
        now = self.objects[name][0] if name in self.objects else 0
        if not name:
            names = [n for n in sorted(self.objects) if n.startswith(query.get("prefix", "")) and n >= query.get("startOffset", "")
                     and n < query.get("endOffset", "\U0010ffff")]
            return self._answer(200, json.dumps({"items": [self._about(n) for n in names]}).encode())
        if self.command != "GET" and int(query.get("ifGenerationMatch", now)) != now:
            return self._answer(412, b'{"error": {"message": "conditionNotMet"}}')
        if self.command == "POST":
            self.objects[name] = next(self.count), body
            return self._answer(200, json.dumps(self._about(name)).encode())
        if name not in self.objects:
            return self._answer(404, b'{"error": {"message": "No such object"}}')
        if self.command == "DELETE":
            del self.objects[name]
            return self._answer(204)
        content = self.objects[name][1]
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(span[1]), int(span[2]) + 1 if span[2] else len(content)
            if start >= len(content):
                return self._answer(416)
            part = content[start:stop]
            return self._answer(206, part, "application/octet-stream", x_goog_generation=now, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        return self._answer(200, content, "application/octet-stream", x_goog_generation=now)

    do_GET = do_POST = do_DELETE = _handle

    def log_message(self, *args):
        pass


def main(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{server.server_address[1]}"
    from tests.training.test_remote_runs import equal, run
    from vmamba_jax import training
    from vmamba_jax.core.objects import StoreError
    from vmamba_jax.core.run_folder import run_folder
    unbroken = run(f"{folder}/unbroken")
    answer, posts = Handler._answer, []

    def failing(self, *args, **headers):
        posts.append(self.command)
        Handler.refused = posts.count("POST") >= 9
        return answer(self, *args, **headers)

    Handler._answer = failing
    with contextlib.suppress(StoreError, training.SaveError):
        run("gs://bucket/run")
        raise AssertionError("9 writes sufficed")
    Handler._answer, Handler.refused = answer, False
    Handler.objects.pop("run/.lock", None)  # this process lives, so it would count as held
    resumed = equal(run("gs://bucket/run"), unbroken)
    again = equal(run("gs://bucket/run"), unbroken)
    lock = run_folder("gs://bucket/run") / ".lock"
    _, absent = lock.read_stamped()
    first, second = lock.write_if(b"a", absent), lock.write_if(b"b", absent)
    errors = []
    for url in ("gs://nowhere/run", "gs://bucket/run2"):
        Handler.refused = url != "gs://nowhere/run"
        try:
            run(url)
        except StoreError as error:
            errors.append(str(error))
    print(json.dumps({"resumed": resumed, "again": again, "created once": first is not None and second is None, "errors": errors,
                      "lines": Handler.objects["run/metrics.jsonl"][1].decode() == open(f"{folder}/unbroken/metrics.jsonl").read()}))


if __name__ == "__main__":
    main(sys.argv[1])
