"""A web server on this machine that misbehaves as told."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clusterprompt.data import fetch


@dataclass
class Page:
    """What the server does with one path.

    Attributes:
        body: The whole file.
        status: Answer to give instead of the file, once for each entry.
        ranges: It can send a part of the file.
        cuts: The connection breaks after this many bytes of the answer, once for each entry.
        type: Content-Type.
        asked: The Range header of each request so far, None where there was none.
    """

    body: bytes = b""
    status: list = field(default_factory=list)
    ranges: bool = True
    cuts: list = field(default_factory=list)
    type: str = "application/octet-stream"
    asked: list = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        page = self.server.pages.get(self.path)
        if page is None:
            return self.send_error(404)
        wanted = self.headers.get("Range")
        page.asked.append(wanted)
        if page.status:
            return self.send_error(page.status.pop(0))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and page.ranges else 0
        total = len(page.body)
        if wanted and page.ranges and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if wanted and page.ranges else 200)
        if wanted and page.ranges:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Type", page.type)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        answer = page.body[start:]
        self.wfile.write(
            answer[: page.cuts.pop(0)] if page.cuts else answer
        )  # the connection is closed after each answer

    def log_message(self, *words):
        pass


@pytest.fixture(scope="session")
def _running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def serve(_running, monkeypatch):
    """A function that puts a file on the server: ``url, page = serve("name", body, ...)``, the rest as in `Page`."""
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _running.pages = {}

    def put(name, body, **how):
        page = _running.pages[f"/{name}"] = Page(body, **how)
        return f"http://127.0.0.1:{_running.server_port}/{name}", page

    return put
