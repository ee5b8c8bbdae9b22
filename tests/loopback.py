"""A server on the loopback that breaks connections on purpose."""

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from effdet_plugin import download


class Server(ThreadingHTTPServer):
    """Serves files; ``break_after`` are bytes after which the next answers end early."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}  # Content-Type of some files
        self.login = ''  # "user:password" that is asked for
        self.break_after: list[int] = []
        self.has_ranges = True
        self.says_size = True
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}/'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get('Range')
        self.server.requests.append(wanted)
        name = self.path.lstrip('/')
        data = self.server.files.get(name)
        login = b64encode(self.server.login.encode()).decode()
        if self.server.login and self.headers.get('Authorization') != f'Basic {login}':
            self.send_response(401)
            self.send_header('WWW-Authenticate', 'Basic realm="camera"')
            self.end_headers()
            return
        if data is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.has_ranges:
            start = int(re.findall(r'\d+', wanted)[0])
            if start >= len(data):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(data)}')
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if name in self.server.types:
            self.send_header('Content-Type', self.server.types[name])
        if self.server.says_size:
            self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        end = self.server.break_after.pop(0) if self.server.break_after else len(data)
        self.wfile.write(data[start:][:end])

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve for the time of a block: nobody waits, no proxy is asked, downloads are allowed."""
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY', download.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        yield server
        server.shutdown()
