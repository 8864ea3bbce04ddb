"""A server with OpenAI's chat completions that does what a real one does not do on demand.

Every request takes the next step of the script; without one it is answered as the task of its JSON
schema asks. What was sent is kept. `scripted_provider` is the server for many requests at once and
for batches, which no script could order.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {
    "prompt_tokens": 200,
    "completion_tokens": 10,
    "total_tokens": 210,
    "prompt_tokens_details": {"cached_tokens": 128},
}
Step = Callable[["Handler", Mapping[str, Any]], None]


class ScriptedOpenAI:
    """Serves from a thread of its own, as a context manager."""

    def __init__(self) -> None:
        self.script: deque[Step] = deque()
        self.always: Step | None = None
        """In place of an answer, when the script is over."""
        self.requests: list[Mapping[str, Any]] = []
        self.keys: list[str | None] = []
        self.at: list[float] = []
        self.at_once = 0
        self.most_at_once = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.scripted = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ScriptedOpenAI:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        scripted: ScriptedOpenAI = self.server.scripted  # type: ignore[attr-defined]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with scripted.lock:
            scripted.requests.append({"path": self.path, **request})
            scripted.keys.append(self.headers["Authorization"])
            scripted.at.append(time.monotonic())
            scripted.at_once += 1
            scripted.most_at_once = max(scripted.most_at_once, scripted.at_once)
            step = scripted.script.popleft() if scripted.script else scripted.always or answer
        try:
            step(self, request)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with scripted.lock:
                scripted.at_once -= 1

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' output."""


def completion(request: Mapping[str, Any], content: str | None, **more: Any) -> bytes:
    message = {"role": "assistant", "content": content, "refusal": more.get("refusal")}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": more.get("finish_reason", "stop"),
    }
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": more.get("model", request["model"]),
            "choices": [choice],
            "usage": more.get("usage", USAGE),
        }
    ).encode()


def review_of(request: Mapping[str, Any]) -> str:
    return str(request["messages"][-1]["content"]).partition("Review:\n")[2]


def answer(handler: Handler, request: Mapping[str, Any]) -> None:
    """What the schema asks for: the first label, or every word with a capital."""
    described = request["response_format"]["json_schema"]
    properties = described["schema"]["properties"]
    if described["name"] == "ner":
        names = re.findall(r"\b[A-Z]\w+", review_of(request))
        said: dict[str, Any] = {"names": [{"label": "person", "text": name} for name in names]}
    else:
        said = {name: values["enum"][0] for name, values in properties.items()}
        if described["name"] == "topic":
            said["value.price-value-for-money"] = "negative"
    handler.send(200, completion(request, json.dumps(said)))


def says(content: str | None, **more: Any) -> Step:
    return lambda handler, request: handler.send(200, completion(request, content, **more))


def status(number: int, message: str = "no", **more: Any) -> Step:
    """`more` goes into the error, but for `headers`."""
    headers = more.pop("headers", {})
    error = {"message": message, "type": None, "param": None, "code": None, **more}
    body = json.dumps({"error": error}).encode()
    return lambda handler, request: handler.send(number, body, headers)


def body(content: bytes) -> Step:
    return lambda handler, request: handler.send(200, content)


def hang(handler: Handler, request: Mapping[str, Any]) -> None:
    """Until the server ends or the client leaves."""
    handler.server.scripted.released.wait(60)  # type: ignore[attr-defined]
    handler.close_connection = True


def drip(handler: Handler, request: Mapping[str, Any]) -> None:
    """A byte now and then: each read is in time, the whole never ends."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server.scripted.released.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b" ")
        handler.wfile.flush()


def cut(handler: Handler, request: Mapping[str, Any]) -> None:
    """The connection ends in the middle of the body."""
    whole = completion(request, '{"label": "positive"}')
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    handler.close_connection = True
