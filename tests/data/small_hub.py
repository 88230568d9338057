"""A hub of one process: enough of its HTTP interface for `datasets` to find, refuse and download a data set."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """The files of a data set at each of its commits, the newest last, and the code with which the hub refuses it.

    One with commits that is refused shows its README.md to anyone, as the hub does with some.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: str | None = None


@contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[str]:
    """Serve these repositories for as long as the context lasts; gives the address to set HF_ENDPOINT to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_POST(self) -> None:
            self._answer(body=True)

        def log_message(self, *_) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path).strip("/").removeprefix("api/").removeprefix("datasets/")
            owner, name, *rest = [*path.split("/"), "", ""]
            repository = repositories.get(f"{owner}/{name}", Repository(refused="RepoNotFound"))
            shown = repository.commits and path.endswith("README.md")
            if repository.refused is not None and not shown:
                return self._send(403 if repository.refused == "GatedRepo" else 404, error=repository.refused)
            verb, revision, *inside = [*rest, ""]
            commits = repository.commits
            commit = list(commits)[-1] if revision in ("", "main") else revision
            if commit not in commits:
                return self._send(404, error="RevisionNotFound")
            files, wanted = commits[commit], "/".join(part for part in inside if part)
            if verb == "resolve":
                if wanted not in files:
                    return self._send(404, error="EntryNotFound", commit=commit)
                return self._send(200, files[wanted], commit=commit, body=body)
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
                if verb != "paths-info" or path in json.loads(sent)["paths"]
            ]
            if verb in ("tree", "paths-info"):
                return self._send(200, json.dumps(entries).encode(), body=body)
            siblings = [{"rfilename": path} for path in files]
            info = {"id": f"{owner}/{name}", "sha": commit, "siblings": siblings, "private": False, "tags": []}
            return self._send(200, json.dumps(info).encode(), body=body)

        def _send(self, status, content=b"", *, error=None, commit=None, body=True) -> None:
            self.send_response(status)
            headers = {"Content-Length": len(content), "X-Error-Code": error, "X-Error-Message": error}
            headers |= {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"' if commit else None}
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, str(value))
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
