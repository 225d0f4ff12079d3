"""A hub on loopback: what huggingface_hub's client needs to create a repository and commit files."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What was pushed: `files` by repository and path, `made` the repositories, `asked` every request's path."""

    address: str = ""
    made: list[dict] = field(default_factory=list)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve until the block ends. Files are taken inside the commit (none goes to large storage)."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.asked.append(self.path)
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts == ["api", "repos", "create"]:
                made = json.loads(body)
                owner = made.get("organization") or "me"
                hub.made.append(made)
                name = f"{owner}/{made['name']}"
                return self.answer({"url": f"{hub.address}/{name}", "name": name, "id": name})
            if parts == ["api", "validate-yaml"]:
                return self.answer({"errors": [], "warnings": []})
            if "preupload" in parts:
                files = json.loads(body)["files"]
                uploads = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
                return self.answer({"files": uploads})
            if "commit" in parts:
                held = hub.files.setdefault("/".join(parts[2:4]), {})
                for line in body.decode().splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        held[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                    elif row["key"] == "header":
                        hub.messages.append(row["value"]["summary"])
                url = f"{hub.address}/{'/'.join(parts[2:4])}"
                return self.answer({"commitUrl": f"{url}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True})
            return self.answer({"error": "not known"}, 404)

        def do_GET(self) -> None:
            hub.asked.append(self.path)
            if self.path.startswith("/api/whoami"):
                return self.answer({"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {}}})
            return self.answer({"error": "Repository not found"}, 404)

        def answer(self, content: dict, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(hub: Hub) -> dict[str, str]:
    """What makes huggingface_hub's own client talk to it."""
    return {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_of_nobody", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
