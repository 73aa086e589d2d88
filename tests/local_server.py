"""Files over HTTP from this machine, from a server that can cut its answers short."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """Serves the files of a folder.

    Attributes:
        address: what the names of files are appended to.
        cut: after how many bytes an answer ends, whatever length it stated; None: it is whole.
        ranges: whether a rest of a file can be asked for.
        asked: the first byte of each answer so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, ""
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[int] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = self.folder / request.path.rpartition("/")[2]
        if not path.is_file():
            request.send_error(404)
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.ranges else 0
        self.asked.append(start)
        if start and start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:][: self.cut])


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of `folder`, for the length of the block."""
    server = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.address = f"http://127.0.0.1:{listening.server_port}/"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
