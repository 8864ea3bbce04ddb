"""An OpenAI-compatible provider for labelling: answers by model, task and text; files and batches.

`scripted_openai` is the server for faults of single requests, in the order of a script.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from reviewmesh_worker.tasks.definition import load_tasks

Said = dict[str, Any]
"""The JSON of an answer, of which a completion is made."""
REVIEW = "\n\nReview:\n"


@dataclass
class Failing:
    """In place of an answer: a status, or a body as it stands."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0.0


class Provider:
    """Serves until it is closed; `answer(model, task, text)` says what or how it fails."""

    def __init__(self, answer: Callable[[str, str, str], Said | Failing], delay_s: float = 0.0):
        self.answer = answer
        self.delay_s = delay_s
        self.calls: Counter[tuple[str, str, str]] = Counter()
        """By model, task and text: how often a completion was asked for."""
        self.keys: set[str] = set()
        self.bodies: list[dict[str, Any]] = []
        self.in_flight: Counter[str] = Counter()
        """By model."""
        self.most_in_flight = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks_until_done = 1
        self.on_batch: Callable[[], None] = lambda: None
        """Called when a batch was made, before the provider says so."""
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"provider": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def asked(self) -> int:
        return sum(self.calls.values())

    def __enter__(self) -> Provider:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def completion(self, body: dict[str, Any]) -> Failing:
        task = body["response_format"]["json_schema"]["name"]
        text = body["messages"][0]["content"].split(REVIEW, 1)[1]
        with self.lock:
            self.calls[body["model"], task, text] += 1
            self.bodies.append(body)
            self.in_flight[body["model"]] += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight[body["model"]])
        try:
            time.sleep(self.delay_s)
            said = self.answer(body["model"], task, text)
            if isinstance(said, Failing):
                time.sleep(said.hang_s)
                return said
            return Failing(body=completed(json.dumps(said)))
        finally:
            with self.lock:
                self.in_flight[body["model"]] -= 1

    def batch(self, made: dict[str, Any]) -> dict[str, Any]:
        """As it is after another look."""
        made["looks"] += 1
        if made["looks"] >= self.looks_until_done and made["status"] == "in_progress":
            lines = []
            for line in self.files[made["input_file_id"]].decode().splitlines():
                asked = json.loads(line)
                done = self.completion(asked["body"])
                response = {"status_code": done.status, "body": done.body}
                lines.append(json.dumps({"custom_id": asked["custom_id"], "response": response}))
            made["output_file_id"] = f"file-{uuid.uuid4().hex}"
            self.files[made["output_file_id"]] = "\n".join(lines).encode()
            made["status"] = "completed"
        return made


def completed(content: str, finish: str = "stop", tokens: tuple[int, int] = (50, 5)) -> Said:
    return {
        "id": "completion",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        },
    }


def sound(task: str, word: str = "positive") -> Said:
    """An answer in the form of the task."""
    if task == "sentiment":
        return {"label": word}
    if task == "topic":
        labels = load_tasks()["topic"].label_ids
        return {label: word if at == 0 else "none" for at, label in enumerate(labels)}
    return {"names": []}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        provider = self.provider
        provider.keys.add(self.headers["authorization"])
        if self.path.endswith("/chat/completions"):
            done = provider.completion(json.loads(content))
            self._send(done.status, done.body, done.headers)
        elif self.path.endswith("/files"):
            # The only part with lines of JSON in it.
            boundary = self.headers["content-type"].split("boundary=")[1].encode()
            [part] = [p for p in content.split(b"--" + boundary) if b"filename=" in p]
            name = f"file-{uuid.uuid4().hex}"
            provider.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
            self._send(200, {"id": name, "object": "file", "purpose": "batch"})
        elif self.path.endswith("/batches"):
            asked = json.loads(content)
            name = f"batch-{uuid.uuid4().hex}"
            provider.batches[name] = asked | {
                "id": name,
                "object": "batch",
                "status": "in_progress",
                "looks": 0,
            }
            provider.on_batch()
            self._send(200, provider.batches[name])
        else:
            self._send(404, {"error": {"message": "no such path"}})

    def do_GET(self) -> None:
        path, provider = self.path.split("?")[0], self.provider
        if found := re.search(r"/batches/(.+)$", path):
            with provider.lock:
                made = provider.batches[found[1]]
            self._send(200, provider.batch(made))
        elif path.endswith("/batches"):
            listed = list(provider.batches.values())
            self._send(200, {"object": "list", "data": listed, "has_more": False})
        elif found := re.search(r"/files/(.+)/content$", path):
            self._send(200, provider.files[found[1]])
        else:
            self._send(404, {"error": {"message": "no such path"}})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            # Whoever asked was killed.
            self.close_connection = True
