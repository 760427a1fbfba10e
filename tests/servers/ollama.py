#!/usr/bin/env python3
"""What Ollama 0.12 does about memory, for tests of giving it back (docs/api.md, docs/openai.md of ollama/ollama).

A request loads its model (`--load-ms`); `POST /api/generate` with `keep_alive: 0` unloads it, once no request runs; what
is loaded is in `/api/ps`. Each load is a process of its own, a runner (`llm/server.go`), that ends with its model.
`--loaded` begins with the model loaded, as by its host. `--keeps` answers 200 to an unload and goes on holding the model,
which a real one does while its runner hangs. `--hangs` does not answer an unload before it is asked once more.

Prints `listening on http://127.0.0.1:PORT`, then `unload` for each time it is asked to.
"""

import argparse
import ctypes
import http.server
import json
import signal
import subprocess
import threading
import time

NAME = "qwen3:8b"
DIGEST = "500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41"
PR_SET_PDEATHSIG = 1


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, args):
        super().__init__(("127.0.0.1", 0), Answers)
        self.args = args
        self.runner = None
        self.running = self.asked = 0
        self.lock = threading.Condition()
        if args.loaded:
            self.load()

    @property
    def loaded(self):
        return self.runner is not None

    def load(self):
        # It ends with this program, whose end of the pipe is then closed.
        self.runner = self.runner or subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def unload(self):
        if self.runner:
            self.runner.stdin.close()
            self.runner.wait()
            self.runner = None


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, body, kind="application/json"):
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        model = {"name": NAME, "model": NAME, "digest": DIGEST, "size": 5225388164,
                 "details": {"family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M"}}
        if self.path == "/":
            self.say(b"Ollama is running", "text/plain; charset=utf-8")
        elif self.path == "/api/version":
            self.say({"version": "0.12.6"})
        elif self.path == "/api/tags":
            self.say({"models": [model]})
        elif self.path == "/api/ps":
            loaded = [{**model, "size_vram": 2 << 30, "context_length": 4096}] if self.server.loaded else []
            self.say({"models": loaded})
        elif self.path == "/v1/models":
            self.say({"object": "list", "data": [{"id": NAME, "object": "model", "created": 1, "owned_by": "library"}]})
        else:
            self.send_error(404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/api/generate" and body.get("keep_alive") == 0:
            print("unload", flush=True)
            with self.server.lock:
                self.server.asked += 1
                self.server.lock.notify_all()
                if self.server.args.hangs:
                    self.server.lock.wait_for(lambda: self.server.asked > 1, timeout=60)
                # It takes a runner down only once nothing runs on it.
                self.server.lock.wait_for(lambda: self.server.running == 0, timeout=30)
                if not self.server.args.keeps:
                    self.server.unload()
            self.say({"model": NAME, "response": "", "done": True, "done_reason": "unload"})
        elif self.path == "/v1/chat/completions":
            self.chat(body)
        elif self.path == "/v1/completions":
            self.say({"choices": [{"index": 0, "text": " four", "finish_reason": "length"}],
                      "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}})
        else:
            self.send_error(404)

    def chat(self, body):
        with self.server.lock:
            self.server.running += 1
            cold = not self.server.loaded
            self.server.load()
        try:
            if cold:
                time.sleep(self.server.args.load_ms / 1000)
            self.answer(body)
        except OSError:
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.running -= 1
                self.server.lock.notify_all()

    def answer(self, body):
        tokens = min(body.get("max_tokens") or 64, 2000)
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": NAME}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "word " * tokens}
            self.say({**chunk, "object": "chat.completion", "usage": usage,
                      "choices": [{"index": 0, "message": message, "finish_reason": "length"}]})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for number in range(tokens):
            time.sleep(0.01)
            last = number == tokens - 1
            choice = {"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": "length" if last else None}
            self.event({**chunk, "choices": [choice]})
        self.event({**chunk, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, value):
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--loaded", action="store_true")
    args.add_argument("--keeps", action="store_true")
    args.add_argument("--hangs", action="store_true")
    args.add_argument("--load-ms", type=int, default=300)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    server = Server(args.parse_args())
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
