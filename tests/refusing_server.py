"""A proxy in front of a tracking server: it answers refused requests itself and forwards all others."""

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextmanager
def refusing_proxy(refuses, target=None, body=b"<html>no entry</html>"):
    """Yields its address. `refuses` is called with (method, path) and returns a status, or None to forward the request."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = refuses(self.command, self.path)
            if status is None and target:
                onward = http.client.HTTPConnection(urlsplit(target).netloc, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "transfer-encoding")}
                onward.request(self.command, self.path, sent, headers)
                answer = onward.getresponse()
                status, content = answer.status, answer.read()
                kind = answer.headers.get("Content-Type", "application/json")
                onward.close()
            else:
                content, kind = body, "text/html"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        def log_message(self, *_):
            pass

    with served(Handler) as url:
        yield url


@contextmanager
def served(handler):
    """A server in a thread; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
