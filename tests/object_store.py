"""A server that answers boto3 as S3 does when it lists and reads objects; nothing can be written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_MODIFIED = ("2026-11-26T10:00:00.000Z", "Thu, 26 Nov 2026 10:00:00 GMT")
# Credentials of any text: nothing is verified.
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def object_store(objects: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """Serves objects (`bucket/key` -> content, which may change meanwhile); gives the environment in which boto3 finds them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._object(body=False)

        def do_GET(self) -> None:
            if "list-type" in parse_qs(urlsplit(self.path).query):
                self._list()
            else:
                self._object(body=True)

        def _list(self) -> None:
            bucket, query = urlsplit(self.path).path.strip("/"), parse_qs(urlsplit(self.path).query)
            prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
            found = {name: content for name, content in sorted(objects.items()) if name.startswith(prefix)}
            rows = "".join(
                f"<Contents><Key>{escape(name.partition('/')[2])}</Key><LastModified>{_MODIFIED[0]}</LastModified>"
                f"<ETag>{_etag(content)}</ETag><Size>{len(content)}</Size></Contents>"
                for name, content in found.items()
            )
            head = f"<Name>{bucket}</Name><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
            xml = f"<ListBucketResult>{head}{rows}</ListBucketResult>"
            self._answer(200, xml.encode(), {"Content-Type": "application/xml"})

        def _object(self, *, body: bool) -> None:
            content = objects.get(unquote(urlsplit(self.path).path).strip("/"))
            if content is None:
                self._answer(404, b"" if not body else b"<Error><Code>NoSuchKey</Code></Error>", {})
                return
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            headers = {"ETag": _etag(content), "Last-Modified": _MODIFIED[1], "Content-Type": "binary/octet-stream"}
            self._answer(206 if "Range" in self.headers else 200, part, headers, send=body)

        def _answer(self, code: int, content: bytes, headers: dict[str, str], *, send: bool = True) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if send and self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Writes nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
