"""Two machines and a router between them, as network namespaces. Called by `second-machine.sh` with the folder of the programs.

The first machine has the model and a hub of its own. The second is behind a router that translates its addresses: nothing
reaches it that it did not ask for. It knows of the first only what is in one invite.
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse

PROGRAMS = pathlib.Path(sys.argv[1])
HERE = pathlib.Path(__file__).resolve().parents[1]
ID = f"iw{os.getpid()}"
ONE, ROUTER, TWO = f"{ID}a", f"{ID}r", f"{ID}b"
# Of the first machine, of the router in front of it, of the second machine.
AT_ONE, AT_ROUTER, AT_TWO = "192.168.77.2", "192.168.77.1", "10.77.0.2"
SETTINGS = """[servers]
scan = false
[share]
idle_after = "0s"
resume_hysteresis = "0s"
battery = "1"
memory_short = true
[control]
listen = "127.0.0.1:0"
"""
BOUND = 1 if os.environ.get("IDLEWATT_STRICT") else 10


def sh(line, **options):
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True, **options).stdout


def until(seconds, what, look):
    began = time.monotonic()
    while True:
        found = look()
        if found:
            return found, time.monotonic() - began
        if time.monotonic() - began > seconds * BOUND:
            sys.exit(f"not within {seconds * BOUND} s: {what}")
        time.sleep(0.05)


class Machine:
    """A home and what runs in a namespace."""

    def __init__(self, space, folder, end):
        self.space, self.home, self.end = space, folder, end
        self.home.mkdir()
        (self.home / "idlewatt.toml").write_text(SETTINGS)

    def start(self, *command, ready, name):
        log = open(self.home / f"{name}.log", "w")
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.space, *map(str, command)],
            stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment(), start_new_session=True,
        )
        self.end.callback(lambda: (process.terminate(), process.wait(20)))
        for line in process.stdout:
            if ready in line:
                return process, line.strip()
        sys.exit(f"{name} ended: {(self.home / f'{name}.log').read_text()[-2000:]}")

    def environment(self):
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        return kept | {"IDLEWATT_HOME": str(self.home), "RUST_LOG": "info,idlewatt=debug"}

    def run(self, *arguments, fails=None):
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, PROGRAMS / "idlewatt", *arguments],
            capture_output=True, text=True, env=self.environment(), timeout=400,
        )
        if done.returncode != (fails or 0):
            sys.exit(f"idlewatt {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stderr if fails else json.loads(done.stdout) if "--json" in arguments else done.stdout

    def network(self, state):
        found = [it for it in self.run("status", "--json")["networks"] if it["state"] == state]
        return found and found[0]

    def curl(self, *arguments):
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, "curl", "-sS", "-m", "60", *arguments], capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, words):
        endpoint = self.run("endpoint", "--json")
        body = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": words}],
                "temperature": 0, "max_tokens": 24}
        code, out, err = self.curl(
            "-D", str(self.home / "heads"), f"{endpoint['url']}/chat/completions", "-d", json.dumps(body),
            "-H", f"authorization: Bearer {endpoint['key']}", "-H", "content-type: application/json",
        )
        answer = json.loads(out) if code == 0 else {"error": err}
        heads = (self.home / "heads").read_text().lower()
        return answer, dict(re.findall(r"(x-idlewatt-[a-z-]+): (\S+)", heads))


def wires(end):
    for space in (ONE, ROUTER, TWO):
        sh(f"ip netns add {space}")
        end.callback(lambda space=space: subprocess.run(["ip", "netns", "del", space]))
        sh(f"ip -n {space} link set lo up")
    for space, near, far, address, gateway in [
        (ONE, f"{ID}1", f"{ID}2", AT_ONE, AT_ROUTER), (TWO, f"{ID}3", f"{ID}4", AT_TWO, "10.77.0.1")
    ]:
        sh(f"ip -n {space} link add {near} type veth peer name {far} netns {ROUTER}")
        sh(f"ip -n {space} address add {address}/24 dev {near} && ip -n {space} link set {near} up")
        sh(f"ip -n {ROUTER} address add {gateway}/24 dev {far} && ip -n {ROUTER} link set {far} up")
    sh(f"ip -n {TWO} route add default via 10.77.0.1")
    sh(f"ip netns exec {ROUTER} sysctl -qw net.ipv4.ip_forward=1")
    rules = f"""table ip nat {{
  chain pre {{ type nat hook prerouting priority -100; }}
  chain post {{ type nat hook postrouting priority 100; oifname "{ID}2" masquerade; }}
}}"""
    sh(f"ip netns exec {ROUTER} nft -f -", input=rules)
    way = subprocess.run(["ip", "-n", ONE, "route", "get", AT_TWO], capture_output=True)
    assert way.returncode != 0, "the first machine has a way to the second, so nothing need be translated"


def main(end):
    folder = pathlib.Path(end.enter_context(tempfile.TemporaryDirectory()))
    wires(end)
    one, two, middle = (Machine(space, folder / space, end) for space in (ONE, TWO, ROUTER))

    model = one.start(sys.executable, HERE / "servers/llama_server.py", ready="listening on ", name="model")[1]
    engine, _ = one.start(PROGRAMS / "idlewatt", "run", ready="control panel", name="engine")
    one.run("config", "set", "servers.urls", model.rsplit(" ", 1)[1])
    services = until(10, "the engine sees the model server", lambda: [
        it["id"] for it in one.run("status", "--json")["services"] if it.get("reachable")])[0]
    one.run("share", services[0], "on", "--price", "0", "--json")
    one.run("hub", "start", "--json")
    alone = one.run("hub", "invite", fails=8)
    assert "hub.lan" in alone and one.curl(f"https://{AT_ONE}:4182/")[0] == 7, alone
    print(f"before the host's choice: {alone.splitlines()[0]}")
    one.run("config", "set", "hub.lan", "true")
    until(10, "the first machine is in its own hub again", lambda: one.network("connected"))
    invited, took = until(10, "the hub is open", lambda: invite(one))
    hubs = urllib.parse.parse_qs(urllib.parse.urlsplit(invited["invite"]).query)["hub"]
    print(f"the hub is open to its network after {took:.1f} s; its invite names {', '.join(hubs)}")
    assert hubs[0] == f"https://{AT_ONE}:4182" and all(hub.startswith("https://") for hub in hubs), hubs

    two.start(PROGRAMS / "idlewatt", "run", ready="control panel", name="engine")
    two.run("config", "set", "own.networks", "true")
    began = time.monotonic()
    two.run("join", invited["invite"], "--json")
    until(10, "the second machine is connected", lambda: two.network("connected"))
    print(f"the second machine, behind NAT, joined by one invite in {time.monotonic() - began:.2f} s")
    answer, heads = two.ask("Count from one to five.")
    words = answer["choices"][0]["message"]["content"]
    assert words and heads.get("x-idlewatt-receipt"), (answer, heads)
    print(f"asked there, answered by the first machine's model: {words!r}")
    served = one.run("requests", "--json")
    assert len(served) == 1, served
    assert one.curl(f"http://{AT_ONE}:4181/healthz")[0] != 0, "the hub answers without encryption"
    assert two.curl(f"http://{AT_ONE}:4182/healthz")[0] != 0, "the hub answers without encryption"
    pem = one.home / "data/hub/hub.pem"
    assert two.curl("--cacert", str(pem), f"https://{AT_ONE}:4182/healthz")[1] == "ok\n"
    assert two.curl(f"https://{AT_ONE}:4182/healthz")[0] == 60, "a stranger believes the certificate"
    print("no plain HTTP leaves the first machine; whoever has no key or root of it does not believe its certificate")

    hub = sh(f"pgrep -P {engine.pid} -f idlewatt-hub").split()[0]
    os.kill(int(hub), 9)
    until(5, "the second machine sees that the hub is gone", lambda: not two.network("connected"))
    _, took = until(10, "the hub is back and the second machine in it", lambda: two.network("connected"))
    until(10, "the first machine is back in it", lambda: one.network("connected"))
    again, _ = two.ask("Count from one to five.")
    assert again["choices"][0]["message"]["content"] == words
    print(f"kill -9 of the hub: the resident starts it again, the second machine is back after {took:.1f} s, and gets the same answer")

    # From here on who asks for the first machine reaches another hub, in the router.
    middle.start(PROGRAMS / "idlewatt-hub", "serve", "--listen", "127.0.0.1:4181", "--lan", "0.0.0.0:4182",
                 "--unannounced", ready="listening on https", name="hub")
    unused = invite(one)["invite"]
    sh(f"ip netns exec {ROUTER} nft add rule ip nat pre iifname {ID}4 tcp dport 4182 redirect to :4182")
    hub = sh(f"pgrep -P {engine.pid} -f idlewatt-hub").split()[0]
    os.kill(int(hub), 9)
    until(10, "the second machine is cut off", lambda: not two.network("connected"))
    three = Machine(TWO, folder / "three", end)
    three.start(PROGRAMS / "idlewatt", "run", ready="control panel", name="engine")
    said = three.run("join", unused, fails=12)
    assert "vouches" in said or "another key" in said, said
    print(f"another hub at the same address: {said.splitlines()[0]}")
    until(10, "the first machine's hub is back", lambda: one.network("connected"))
    answer, _ = two.ask("Count from one to five.")
    assert "choices" not in answer, answer
    heard = (middle.home / "hub.log").read_text()
    assert "a node is not let in" not in heard and "connected" not in heard, heard
    state = two.run("status", "--json")["networks"][0]
    assert state["state"] != "connected", state
    print(f"the second machine tells it nothing: {state['reason']}")

    sh(f"ip netns exec {ROUTER} nft flush chain ip nat pre")
    _, took = until(70, "the second machine is back", lambda: two.network("connected"))
    print(f"and is back {took:.1f} s after the way is right again")


def invite(machine):
    return machine.run("hub", "invite", "--json")


with contextlib.ExitStack() as end:
    main(end)
