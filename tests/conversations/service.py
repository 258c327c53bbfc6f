"""A language model's service as OpenAI's interface has it, on this machine, that answers from a script and counts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Gets the messages of a request, gives the message that answers it.
Script = Callable[[list[dict[str, Any]]], dict[str, Any]]


class Service:
    """Serves until `close`; `url` is its address, `asked` holds the number of messages of each request."""

    def __init__(self, script: Script) -> None:
        self.asked: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(len(body["messages"]))
                answer = {"role": "assistant", "content": None, **script(body["messages"])}
                choice = {"index": 0, "finish_reason": "stop", "message": answer}
                data = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/chat/completions"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
