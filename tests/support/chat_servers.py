"""A chat server on loopback that replies as it is told: well, badly, slowly or not at all."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(content, usage=(100, 10)):
    """The reply of an endpoint, with its token counts."""
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if usage else None
    return {"choices": [{"message": {"content": content}}], "usage": counts}


class Endpoint:
    """A server that answers the n-th request with the n-th of `replies`; the last one repeats.

    A reply is the text of a completion, a status, a dict sent as JSON, bytes sent as they are, or a
    function of the request's body; that may give a function of the handler, which writes the reply.
    """

    def __init__(self, replies):
        self.replies, self.bodies, self.headers = list(replies), [], []
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.reply(self)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def reply(self, handler):
        size = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(size) or "null")
        with self.lock:
            reply = self.replies[min(len(self.bodies), len(self.replies) - 1)]
            self.bodies.append(body)
            self.headers.append(dict(handler.headers) | {"path": handler.path})
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if callable(reply):
                reply = reply(body) if reply is not trickle else trickle(handler)
            if callable(reply):
                reply = reply(handler)
            self.send(handler, reply)
        except OSError:
            pass
        finally:
            with self.lock:
                self.running -= 1

    def send(self, handler, reply):
        status, headers = 200, {}
        if isinstance(reply, tuple):
            reply, headers = reply
        if isinstance(reply, int):
            status, reply = reply, {"error": "no"}
        if reply is None:
            return
        content = reply
        if not isinstance(reply, bytes):
            content = json.dumps(completion(reply) if isinstance(reply, str) else reply).encode()
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def predictions(self):
        return [json.loads(body["messages"][1]["content"])["prediction"] for body in self.bodies]


def trickle(handler):
    """Headers at once, then a byte now and then, for longer than anybody waits."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@contextmanager
def serving(*replies):
    endpoint = Endpoint(replies)
    thread = threading.Thread(target=endpoint.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
        thread.join()
