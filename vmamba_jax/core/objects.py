"""Objects in Google Cloud Storage, S3 and on HTTP servers, by URL, through TensorStore's drivers: ranges, lists, conditional writes.

S3 uses $AWS_ENDPOINT_URL_S3 or $AWS_ENDPOINT_URL if set, $AWS_REGION, and the credentials of the AWS tools; Google Cloud Storage the application
default credentials, and $TENSORSTORE_GCS_HTTP_URL for another endpoint.
"""
import functools
import os
import re
import urllib.parse

SCHEMES = ("gs", "s3", "http", "https")
RETRIES = {"max_retries": 5, "initial_delay": "200ms", "max_delay": "5s"}  # TensorStore's 32 keep an unreachable server waiting for minutes
MOST_BYTES = 1 << 62  # of one object, in a search for its size


class StoreError(OSError):
    """An object store refuses a request or cannot be reached; the message names the URL and the cause in one line."""


def is_url(path):
    """Whether a path is a URL, such as gs://bucket/folder."""
    return isinstance(path, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", path) is not None


class Objects:
    """The objects whose URL begins with `url` + "/"; keys are relative to it. Several threads may use it, and it pickles.

    Args:
        url: gs://bucket/path, s3://bucket/path, or http(s)://host/path, which is read-only.
    """

    def __init__(self, url):
        self.url = url.rstrip("/")
        scheme, place = self.url.split("://", 1) if is_url(url) else ("", "")
        if scheme not in SCHEMES or not place:
            raise ValueError(f"url={url!r}: expected a URL that begins with {', '.join(f'{name}://' for name in SCHEMES)} and a bucket or host")

    def read(self, key, start=None, stop=None):
        """The bytes [start, stop) of an object, all of it by default; None: no such object.

        Raises:
            EOFError: the object is shorter than `stop`.
        """
        span = {} if start is None else {"byte_range": slice(start, stop)}
        found = self._call(self._store.read, key, **span)
        return found.value if found.state == "value" else None

    def read_stamped(self, key):
        """(bytes of an object or None, its generation: the condition for a `write` that replaces or creates exactly this)."""
        found = self._call(self._store.read, key)
        return (found.value if found.state == "value" else None), found.stamp.generation

    def write(self, key, content, generation=None):
        """Write a whole object; None as content deletes it.

        Args:
            generation: write only if the object still has it, see `read_stamped`; None: always.

        Returns:
            The new generation; None: the object has another one, and nothing was written.
        """
        return self._call(self._store.write, key, content, **({} if generation is None else {"if_equal": generation})).generation or None

    def delete(self, key):
        self.write(key, None)

    def list(self, prefix=""):
        """Sorted keys that begin with `prefix`."""
        return sorted(key.decode() for key in self._call(self._listing, prefix))

    def size(self, key):
        """Bytes of an object; None: no such object."""
        try:
            content = self.read(key, 0, MOST_BYTES)
            return None if content is None else len(content)
        except EOFError as error:  # some drivers state the size; it is verified below
            stated = re.search(r"total size (\d+)", str(error))
        if stated and (n := int(stated[1])) and self._reaches(key, n) and not self._reaches(key, n + 1):
            return n
        low, high = 0, 1  # the object has `low` bytes or more, and fewer than `high` once the loop ends
        while self._reaches(key, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._reaches(key, middle) else (low, middle)
        return low

    def _reaches(self, key, n):
        """Whether an object has n bytes or more."""
        try:
            return self.read(key, n - 1, n) is not None
        except EOFError:
            return False

    def _listing(self, prefix):
        import tensorstore as ts
        return self._store.list(ts.KvStore.KeyRange(prefix, prefix + "\U0010ffff") if prefix else ts.KvStore.KeyRange())

    def _call(self, request, key, *args, **options):
        try:
            return request(key, *args, **options).result()
        except (ValueError, OSError, RuntimeError, NotImplementedError) as error:  # TensorStore's kinds
            text = " ".join(re.sub(r"\[[a-z_-]+='.*?'\]|\[HTTP code \d+\]", "", str(error)).split())
            if text.startswith("OUT_OF_RANGE"):
                raise EOFError(f"{self.url}/{key}: {text}") from error
            raise StoreError(f"{self.url}: expected a bucket or server that this process can reach and use, but {text[:300]}") from error

    @functools.cached_property
    def _store(self):
        import tensorstore as ts  # slow to import
        parts = urllib.parse.urlsplit(self.url)
        path = parts.path.lstrip("/") + "/" * bool(parts.path.lstrip("/"))
        if parts.scheme in ("http", "https"):
            spec = {"driver": "http", "base_url": f"{parts.scheme}://{parts.netloc}", "path": f"/{path}"}
        else:
            spec = {"driver": "gcs" if parts.scheme == "gs" else "s3", "bucket": parts.netloc, "path": path}
        if parts.scheme == "s3":
            given = os.environ
            if endpoint := given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL"):
                spec |= {"endpoint": endpoint.rstrip("/"), "aws_region": given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or "us-east-1"}
            if given.get("AWS_ACCESS_KEY_ID"):
                spec["aws_credentials"] = {"type": "environment"}  # the default looks for ~/.aws first and logs errors without it
        try:
            return ts.KvStore.open(spec, context=ts.Context({f"{name}_request_retries": RETRIES for name in ("gcs", "s3")})).result()
        except (ValueError, OSError, RuntimeError) as error:
            raise StoreError(f"{self.url}: expected a URL that TensorStore can open, but {' '.join(str(error).split())[:300]}") from error

    def __getstate__(self):
        return {"url": self.url}
