"""Measures Idlewatt beside routers over one scripted model server, in one run, and writes docs/benchmarks.md.

Started by script/bench. Every figure is of one machine at one time, so only ratios within a run say anything: each round asks
the model server directly first, then each in turn. A run of Idlewatt ends when no receipt and no posting is outstanding, and
the time until then counts.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SHORT = sys.argv[1] == "short"
TARGET = pathlib.Path(sys.argv[2])
PEERS = pathlib.Path(sys.argv[3])
BIN = TARGET / os.environ.get("IDLEWATT_PROFILE", "release")
ROUNDS = 1 if SHORT else 3
MS = 1000 if SHORT else 3000
TOKENS = 64
# Answers longer than PACED come as a quick card gives them: a hundred tokens a second.
PACED, PACE_US = 256, 10_000
TICK = os.sysconf("SC_CLK_TCK")
HERE = pathlib.Path(tempfile.mkdtemp(prefix="idlewatt-bench-"))
started = []


def spawn(name, *command, env=None, cwd=None, line=None):
    log = open(HERE / f"{name}.log", "ab")
    out = subprocess.PIPE if line else log
    process = subprocess.Popen(
        [str(part) for part in command], stdout=out, stderr=log, env={**os.environ, **(env or {})}, cwd=cwd,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )
    started.append(process)
    if line:
        while text := process.stdout.readline().decode():
            if line in text:
                return process, text.split(line)[1].strip()
        raise RuntimeError(f"{name} ended: {(HERE / f'{name}.log').read_text()[-2000:]}")
    return process


def stop(process, patience=20):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, seconds, look):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (OSError, ValueError, LookupError, RuntimeError):
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds} s")


def run(*command, env=None):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    return done.stdout


def family(pid):
    """A process and its children."""
    pids = [pid]
    for each in pids:
        for task in pathlib.Path(f"/proc/{each}/task").glob("*/children"):
            pids += [int(child) for child in task.read_text().split()]
    return pids


def cpu_s(pids):
    ticks = 0
    for root in pids:
        for pid in family(root):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def pss_kib(pid):
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])


class Direct:
    name, hops = "direct", 0

    def __init__(self, url):
        self.url, self.key, self.header, self.pids = url, "none", "", []

    def settled(self):
        pass


class Peer(Direct):
    hops = 1

    def __init__(self, name, process, port, header="", key="none"):
        super().__init__(f"http://127.0.0.1:{port}")
        self.name, self.header, self.key, self.pids = name, header, key, [process.pid]


class Idlewatt(Direct):
    name, hops = "Idlewatt (hub and node)", 2

    def __init__(self, model):
        self.data, home = HERE / "hub", HERE / "node"
        self.env = {"IDLEWATT_HOME": str(home), "RUST_LOG": "warn"}
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_ID", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
            os.environ.pop(name, None)
        home.mkdir()
        (home / "idlewatt.toml").write_text(
            '[servers]\nscan = false\n\n[share]\nidle_after = "0s"\nresume_hysteresis = "0s"\nbattery = "1"\n'
            'memory_short = true\n\n[control]\nlisten = "127.0.0.1:0"\n'
        )
        self.hub, url = spawn(
            "hub", BIN / "idlewatt-hub", "serve", "--listen", "127.0.0.1:0", "--data", self.data, line="listening on ",
            env={"RUST_LOG": "warn"},
        )
        super().__init__(url)
        self.node, _ = spawn("node", BIN / "idlewatt", "run", env=self.env, line="control panel: ")
        self.pids = [self.hub.pid, self.node.pid]
        self.key = json.loads(
            self.operator("key", "create", "--account", "bench", "--credits", "1000000", "--json")
        )["key"]
        invite = json.loads(self.operator("invite", "create", "--account", "host", "--json"))["invite"]
        self.cli("config", "set", "servers.urls", model)
        service = until("the model is seen", 30, lambda: self.status()["services"][0]["id"])
        self.cli("share", service, "on", "--price", "1", "--json")
        until("the model is ready", 60, lambda: self.status()["services"][0]["ready"])
        self.cli("join", invite, "--json")
        until("the node shares", 60, lambda: self.status()["state"] == "sharing")
        until("the hub may ask it", 60, lambda: self.metric("idlewatt_hub_nodes_accepting"))

    def operator(self, *command):
        return run(BIN / "idlewatt-hub", *command, "--data", self.data)

    def cli(self, *command):
        return run(BIN / "idlewatt", *command, env=self.env)

    def status(self):
        return json.loads(self.cli("status", "--json"))

    def metric(self, name):
        text = urllib.request.urlopen(f"{self.url}/metrics").read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? ([\d.]+)$", text, re.M))

    def settled(self):
        """Waits until every request has its receipt and every posting has reached the node."""
        until("every request is settled", 60, lambda: self.metric("idlewatt_hub_requests_under_way") == 0)
        database = next(pathlib.Path(self.env["IDLEWATT_HOME"]).rglob("*.db"), None) or next(
            pathlib.Path(self.env["IDLEWATT_HOME"]).rglob("*.sqlite*")
        )
        books = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        until("every posting has arrived", 60, lambda: books.execute("SELECT count(*) FROM outbox").fetchone()[0] == 0)
        books.close()


def load(who, **options):
    arguments = {"url": who.url, "key": who.key, "header": who.header, "ms": MS, "tokens": 16, **options}
    flat = [str(part) for name, value in arguments.items() if value != "" for part in (f"--{name}", value)]
    began = time.monotonic()
    seen = json.loads(run(BIN / "load", *flat))
    who.settled()
    seen["until_settled"] = max(seen["seconds"], time.monotonic() - began)
    if seen["errors"]:
        raise RuntimeError(f"{who.name}: {seen['errors']} errors, the first: {seen['fault']}")
    return seen


def answers(peer):
    def look():
        return json.loads(run(BIN / "load", "--url", peer.url, "--key", peer.key, "--ms", "50",
                              *(["--header", peer.header] if peer.header else [])))["requests"] > 0
    until(f"{peer.name} answers", 240, look)
    return peer


def nginx(model):
    port, folder = free_port(), HERE / "nginx"
    folder.mkdir()
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes auto; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; keepalive_requests 1000000;
  upstream model {{ server {model}; keepalive 64; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}
}}""")
    return Peer("nginx", spawn("nginx", "nginx", "-c", folder / "nginx.conf", "-p", folder), port)


def haproxy(model):
    port, conf = free_port(), HERE / "haproxy.cfg"
    conf.write_text(f"""
global
  nbthread 2
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option http-no-delay
frontend door
  bind 127.0.0.1:{port}
  default_backend model
backend model
  server one {model}
""")
    return Peer("haproxy", spawn("haproxy", "haproxy", "-f", conf, "-db"), port)


def vllm_router(model):
    port = free_port()
    return Peer("vllm-router", spawn(
        "vllm-router", PEERS / "rust/bin/vllm-router", "--host", "127.0.0.1", "--port", port, "--worker-urls",
        f"http://{model}", "--policy", "round_robin", "--log-level", "error", "--prometheus-port", free_port()), port)


def sglang_router(model, name="sglang-router"):
    port = free_port()
    return Peer(name, spawn(
        name, PEERS / f"rust/bin/{name}", "launch", "--host", "127.0.0.1", "--port", port, "--worker-urls",
        f"http://{model}", "--policy", "round_robin", "--log-level", "error", "--prometheus-port", free_port()), port)


def smg(model):
    return sglang_router(model, "smg")


def portkey(model):
    port, folder = free_port(), PEERS / "portkey/node_modules/@portkey-ai/gateway"
    header = f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://{model}/v1"
    process = spawn("portkey", "node", folder / "build/start-server.js", f"--port={port}", "--headless",
                    env={"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"})
    return Peer("Portkey", process, port, header)


def litellm(model):
    port, conf = free_port(), HERE / "litellm.yaml"
    conf.write_text(f"""model_list:
  - model_name: fast
    litellm_params: {{model: openai/fast, api_base: "http://{model}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
""")
    process = spawn("litellm", PEERS / "litellm/bin/litellm", "--config", conf, "--port", port, "--host", "127.0.0.1",
                    "--num_workers", 2, env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    return Peer("LiteLLM", process, port)


CASES = {
    "one": {"clients": 1},
    "many": {"clients": 32},
    "one_stream": {"clients": 1, "stream": 1, "tokens": TOKENS},
    "many_streams": {"clients": 32, "stream": 1, "tokens": TOKENS},
}


def per_token(who):
    """Processor time a streamed token at a hundred tokens a second, 32 streams, without what the same time costs at rest."""
    def used(act):
        began, cpu = time.monotonic(), cpu_s(who.pids)
        result = act()
        return cpu_s(who.pids) - cpu, time.monotonic() - began, result
    rest, rest_s, _ = used(lambda: time.sleep(1))
    spent, spent_s, seen = used(lambda: load(who, clients=32, stream=1, tokens=300, ms=500 if SHORT else 3100))
    return (spent - rest / rest_s * spent_s) / seen["tokens"] * 1e6, seen


def per_stream(who):
    """Memory of one stream under way, hub and node, KiB."""
    before = [pss_kib(pid) for pid in who.pids]
    asking = subprocess.Popen(
        [str(BIN / "load"), "--url", who.url, "--key", who.key, "--clients", "100", "--stream", "1", "--tokens", "600",
         "--ms", "500"], stdout=subprocess.PIPE)
    until("100 streams run", 10, lambda: who.metric("idlewatt_hub_requests_under_way") >= 100)
    time.sleep(1)
    during = [pss_kib(pid) for pid in who.pids]
    asking.communicate()
    who.settled()
    return [(now - then) / 100 for then, now in zip(before, during)]


def idle_nodes(who, nodes):
    before = pss_kib(who.hub.pid)
    clients = subprocess.Popen([str(BIN / "idle-nodes"), "--data", str(who.data), "--nodes", str(nodes)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started.append(clients)
    clients.stdout.readline()
    time.sleep(2)
    each = (pss_kib(who.hub.pid) - before) / nodes
    stop(clients)
    return each


def bench(package, name):
    out = run("cargo", "bench", "--quiet", "--locked", "-p", package, "--bench", name)
    return json.loads(out[out.index("["):] if out.lstrip().startswith("[") else out[out.index("{"):])


def main():
    fast, address = spawn("model", BIN / "fast-model", "--pace-us", PACE_US, "--pace-over", PACED, line="listening on http://")
    contenders, left_out = [Direct(f"http://{address}")], []
    for start in (nginx, haproxy, vllm_router, sglang_router, smg, portkey, litellm):
        try:
            contenders.append(answers(start(address)))
        except (OSError, TimeoutError, RuntimeError) as why:
            left_out.append((start.__name__, str(why).splitlines()[0]))
            print(f"left out: {start.__name__}: {why}", flush=True)
    own = Idlewatt(f"http://{address}")
    contenders.append(own)
    seen = {who.name: {case: [] for case in CASES} for who in contenders}
    for who in contenders:
        load(who, clients=4, ms=300)
        load(who, clients=4, ms=300, stream=1)
    for number in range(ROUNDS):
        for case, options in CASES.items():
            for who in contenders:
                if seen[who.name][case] is None:
                    continue
                try:
                    seen[who.name][case].append(load(who, **options))
                except RuntimeError as why:
                    print(f"{case}: {why}", flush=True)
                    seen[who.name][case] = None
        print(f"round {number + 1} of {ROUNDS}", flush=True)
    cpu = {}
    for who in contenders[1:]:
        try:
            cpu[who.name], paced = per_token(who)
            if who is own:
                own_paced = paced
        except RuntimeError as why:
            print(f"paced: {why}", flush=True)
    stream_kib = per_stream(own)
    node_kib = idle_nodes(own, 500 if SHORT else 2000)
    checked = own.operator("ledger", "check", "--json")
    decisions = bench("idlewatt-hub-core", "routing")
    posts = {"per_second": max(it["settlements_a_second"] for it in bench("idlewatt-hub", "ledger"))}
    tell(contenders, seen, cpu, own_paced, stream_kib, node_kib, json.loads(checked), decisions, posts, left_out)


def middle(rounds, figure):
    return statistics.median(figure(one) for one in rounds) if rounds else None


FIGURES = {
    "one": ("one client, p50", lambda it: it["p50_us"], "{:,.0f} µs"),
    "many": ("32 clients", lambda it: it["requests"] / it["until_settled"], "{:,.0f}/s"),
    "one_stream": ("one stream, first token p50", lambda it: it["first_p50_us"], "{:,.0f} µs"),
    "many_streams": ("32 streams", lambda it: it["tokens"] / it["until_settled"], "{:,.0f} tokens/s"),
}


def tell(contenders, seen, cpu, paced, stream_kib, node_kib, checked, decisions, posts, left_out):
    value = {who.name: {case: middle(seen[who.name][case], FIGURES[case][1]) for case in CASES} for who in contenders}
    nginx, own, direct = value["nginx"], value[Idlewatt.name], value["direct"]
    routers = {name: it["many"] / nginx["many"] for name, it in value.items()
               if name not in ("direct", "nginx", "haproxy", Idlewatt.name) and it["many"]}
    fastest = max(routers, key=routers.get) if routers else None
    added = own["one"] - direct["one"]
    at = lambda nodes, pick: max(it[pick] for it in decisions if it["nodes"] == nodes) / 1000
    bound = lambda ok: "met" if ok else "**missed**"
    rows = [
        ("added latency, one client, non-streaming, receipts on, p50", "≤ 250 µs", f"{added:,.0f} µs", added <= 250),
        ("throughput, 32 clients, until nothing is outstanding",
         f"≥ the fastest Rust router ({fastest}: {routers[fastest]:.2f} × nginx)" if fastest else "—",
         f"{own['many'] / nginx['many']:.2f} × nginx", fastest and own["many"] / nginx["many"] >= routers[fastest]),
        ("processor time a streamed token, hub and node, 100 tokens/s a stream", "≤ 8 µs",
         f"{cpu[Idlewatt.name]:.1f} µs", cpu[Idlewatt.name] <= 8),
        ("memory of an idle connected node in the hub", "≤ 32 KiB", f"{node_kib:.1f} KiB", node_kib <= 32),
        ("durable settlements, each with a signed receipt", "≥ 50,000/s", f"{posts['per_second']:,.0f}/s",
         posts["per_second"] >= 50_000),
        ("routing decision, 10 nodes, the dearest case, p50", "≤ 5 µs", f"{at(10, 'p50_ns'):.2f} µs", at(10, "p50_ns") <= 5),
        ("routing decision, 10,000 nodes, the dearest case, p50", "≤ 20 µs", f"{at(10_000, 'p50_ns'):.1f} µs",
         at(10_000, "p50_ns") <= 20),
    ]
    versions = {
        "nginx": run("sh", "-c", "nginx -v 2>&1").strip().split("/")[-1],
        "haproxy": run("haproxy", "-v").split()[2].split("-")[0],
        "vllm-router": "0.1.17", "sglang-router": "0.3.2", "smg": "1.13.0", "Portkey": "1.15.2", "LiteLLM": "1.102.4",
        "direct": "the model server alone", Idlewatt.name: run("git", "describe", "--always").strip(),
    }
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    lines = [
        "# Benchmarks", "",
        f"Written by `script/bench` on {datetime.date.today()}: {os.cpu_count()} cores ({model}), Linux "
        f"{platform.release().split('-')[0]}, load before the run {os.getloadavg()[2]:.2f}. {ROUNDS} rounds of {MS / 1000:g} s a "
        "figure, the middle one; everything on one machine, the clients and the scripted model server too. Only ratios within "
        "a run say anything.", "",
        "Idlewatt's path has two hops (hub, node) with a key, a reservation, metering, a signed statement, a receipt and a "
        "posting a request; the others have one hop and keep no books. Its throughput counts the time until no receipt and no "
        "posting is outstanding.", "",
        "## Targets", "", "| what | target | measured | |", "|---|---|---|---|",
        *(f"| {what} | {target} | {measured} | {bound(ok)} |" for what, target, measured, ok in rows), "",
        "## Beside other routers", "",
        "| | hops | " + " | ".join(f"{FIGURES[case][0]} | × nginx" for case in CASES) + " | processor time a streamed token |",
        "|---|---|" + "---|---|" * len(CASES) + "---|",
    ]
    for who in contenders:
        cells = []
        for case in CASES:
            it = value[who.name][case]
            cells.append("failed | " if it is None else f"{FIGURES[case][2].format(it)} | {it / nginx[case]:.2f}")
        token = f"{cpu[who.name]:.1f} µs" if who.name in cpu else ""
        lines.append(f"| {who.name} {versions[who.name]} | {who.hops} | {' | '.join(cells)} | {token} |")
    lines += ["", *(f"Left out: {name} ({why})." for name, why in left_out), ""]
    lines += [
        "## Further figures", "",
        f"- A stream under way holds {stream_kib[0]:.0f} KiB in the hub and {stream_kib[1]:.0f} KiB in the node (100 at once).",
        f"- Paced streams (32 at 100 tokens/s): first token p50 {paced['first_p50_us']:,} µs, p99 {paced['first_p99_us']:,} µs.",
        f"- After the run `ledger check` found {json.dumps(checked)[:300]}.", "",
        "Routing decisions with the slot taken and given back, p50 and p99 in µs:", "",
        "| nodes | " + " | ".join(it["case"] for it in decisions if it["nodes"] == 10) + " |",
        "|---|" + "---|" * len([it for it in decisions if it["nodes"] == 10]),
    ]
    for nodes in sorted({it["nodes"] for it in decisions}):
        of = [f"{it['p50_ns'] / 1000:.2f}, {it['p99_ns'] / 1000:.2f}" for it in decisions if it["nodes"] == nodes]
        lines.append(f"| {nodes:,} | {' | '.join(of)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if not SHORT:
        notes = pathlib.Path("docs/benchmarks.md")
        kept = notes.read_text().split("\n## What costs", 1)[1:] if notes.exists() else []
        notes.write_text(text + "".join("\n## What costs" + part for part in kept))
    (HERE / "seen.json").write_text(json.dumps({"value": value, "cpu": cpu, "seen": seen}, indent=1))


try:
    main()
finally:
    for process in reversed(started):
        stop(process, 5)
    if os.environ.get("IDLEWATT_KEEP"):
        print(HERE)
    else:
        shutil.rmtree(HERE, ignore_errors=True)
