"""Ten thousand idle nodes on one hub process: what each holds of its memory, that no heartbeat is missed, and how they come
back after the hub was killed. Started by tests/show/ten-thousand.sh.

The nodes are in a process of their own, each with its own key, invite and connection, through the client that a node uses.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BIN, NODES = pathlib.Path(sys.argv[1]), int(sys.argv[2])
STRICT = os.environ.get("IDLEWATT_STRICT") == "1"
# network.md: an idle connected node costs the hub at most 32 KiB.
MOST_KIB = 32
# Pings go out every 20 s and a node is gone after two without an answer: this long shows a missed one.
WATCHED_S = 70
# At most this part of all nodes may come back in one tenth of a second (the first wait is 250 ms at most, at random), and all
# must be back in this time.
MOST_AT_ONCE, BACK_S = 0.25, 60

folder = pathlib.Path(tempfile.mkdtemp(prefix="idlewatt-nodes-"))


def hub(listen):
    log = open(folder / "hub.log", "ab")
    process = subprocess.Popen(
        [BIN / "idlewatt-hub", "serve", "--listen", listen, "--data", folder / "data"],
        stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "RUST_LOG": "info"})
    return process, process.stdout.readline().split("listening on http://")[1].strip()


def pss_kib(process):
    rollup = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])


def ask(nodes):
    nodes.stdin.write("\n")
    nodes.stdin.flush()
    return json.loads(nodes.stdout.readline())


serving, address = hub("127.0.0.1:0")
nodes = None
faults = []
try:
    before = pss_kib(serving)
    began = time.monotonic()
    nodes = subprocess.Popen([BIN / "idle-nodes", "--data", folder / "data", "--nodes", str(NODES)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = nodes.stdout.readline()
    if not line.startswith("joined"):
        sys.exit("the nodes could not join; see their words above")
    print(f"{NODES:,} nodes joined, each with an invite of its own, in {time.monotonic() - began:.0f} s", flush=True)
    time.sleep(2)
    each = (pss_kib(serving) - before) / NODES
    print(f"memory of the hub: {each:.1f} KiB a node (PSS, target at most {MOST_KIB})", flush=True)
    if each > MOST_KIB:
        faults.append("memory")
    ask(nodes)
    cpu = lambda: sum(int(it) for it in pathlib.Path(f"/proc/{serving.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    ticks = cpu()
    time.sleep(WATCHED_S)
    used = (cpu() - ticks) / os.sysconf("SC_CLK_TCK") / WATCHED_S * 100
    stood = ask(nodes)
    missed = (folder / "hub.log").read_text().count("stopped answering pings")
    print(f"in {WATCHED_S} s: {stood['connected']:,} connected, {stood['lost']} lost, {missed} heartbeats missed, "
          f"{used:.1f} % of a core", flush=True)
    if stood["connected"] != NODES or stood["lost"] or missed:
        faults.append("heartbeats")
    serving.send_signal(signal.SIGKILL)
    serving.wait()
    up = ask(nodes)
    killed = up["at_ms"]
    while up["connected"]:
        time.sleep(0.1)
        up = ask(nodes)
    serving, _ = hub(address)
    start = up["at_ms"]
    back, end = [], time.monotonic() + BACK_S * (1 if STRICT else 10)
    while up["connected"] < NODES and time.monotonic() < end:
        time.sleep(0.25)
        up = ask(nodes)
        back += up["connected_at_ms"]
    tenths = {}
    for moment in back:
        tenths[(moment - start) // 100] = tenths.get((moment - start) // 100, 0) + 1
    most, last = max(tenths.values(), default=0), (max(back, default=start) - start) / 1000
    print(f"after kill -9 (all lost within {(start - killed) / 1000:.1f} s) and a start: {len(back):,} back within {last:.1f} s, at most {most:,} in a tenth of a second "
          f"({most / NODES:.0%}), {up['refused']} refused", flush=True)
    if up["connected"] != NODES or len(back) < NODES or up["refused"] or most / NODES > MOST_AT_ONCE or STRICT and last > BACK_S:
        faults.append("coming back")
finally:
    for process in (nodes, serving):
        if process and process.poll() is None:
            process.kill()
            process.wait()
    if faults:
        print(f"the hub's log is kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
sys.exit(f"missed: {', '.join(faults)}" if faults else 0)
