"""A desk in miniature for pictures of the panel. Called by `screens.sh`.

Real: hub, engine, model server, requests, receipts, and the X11 session in which somebody sits down at the end.
Simulated: the graphics card (tests/simnvml), whose load follows what the model server is really doing.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import waiting

BIN, PICTURES = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
ROOT = pathlib.Path(__file__).resolve().parents[2]
BOUND = 60
# What the card draws, in watts, and its cap: as somebody who caps would set it.
RESTING, LOADED, ANSWERING, LIMIT = 21, 58, 262, 280
SWEPT = "150,180,210,240,280"

ASKED = [
    "Why is the sky blue?", "Write a short poem about the sea.", "What is a heat pump?", "Name three uses of lime.",
    "Tell me a story about a fox.", "How do bees find their way?", "Explain tides to a child.", "What is a prime number?",
]


def until(what, seen):
    return waiting.until(what, seen, BOUND)


class Desk:
    """The processes, and the folder that they live in."""

    def __init__(self, folder):
        self.folder, self.started = folder, []
        # The process whose model is on the card.
        self.runs = None
        self.log = open(folder / "log", "w")
        self.home = folder / "home"
        self.env = {**os.environ, "IDLEWATT_HOME": str(self.home), "IDLEWATT_SIMNVML": str(folder / "card.json")}
        # Presence comes from the X server below, and from nothing of the machine that this runs on.
        for name in ("WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_SESSION_ID", "XDG_CURRENT_DESKTOP"):
            self.env.pop(name, None)
        self.env["XDG_SESSION_TYPE"] = "x11"

    def start(self, *command, says=""):
        process = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.started.append(process)
        return until(f"{command[0]} says {says!r}", lambda: says_after(process, says))

    def node(self, *command):
        ran = subprocess.run([BIN / "idlewatt", *command, "--json"], env=self.env, capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"idlewatt {' '.join(command)}: {ran.stderr}")
        return json.loads(ran.stdout) if ran.stdout.strip() else None

    def hub(self, *command):
        ran = subprocess.run([BIN / "idlewatt-hub", *command, "--json", "--data", self.folder / "garage"],
                             env=self.env, capture_output=True, text=True, check=True)
        return json.loads(ran.stdout)

    def card(self, watts):
        state = {"needs_right": False, "cards": [{
            "load_w": watts, "noise_mw": 1800, "tau_ms": 600,
            "utilisation": 96 if watts == ANSWERING else 0, "vram_used": (2 if watts == RESTING else 9) << 30,
            "processes": [{"pid": self.runs, "vram": 7 << 30}] if self.runs else []}]}
        (self.folder / "card.new").write_text(json.dumps(state))
        (self.folder / "card.new").replace(self.folder / "card.json")

    def end(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.started):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def says_after(process, prefix):
    line = process.stdout.readline()
    if line == "" and process.poll() is not None:
        sys.exit(f"{process.args[0]} ended with {process.returncode}")
    return line.strip().removeprefix(prefix) if line.startswith(prefix) else None


def follow(desk, stop):
    """Lets the card draw what the model server does. Asking the server would be somebody's own use of it."""
    drawn, before = None, 0
    while not stop.wait(0.2):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{desk.runs}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            watts = ANSWERING if ticks - before > 4 else LOADED
            before = ticks
            if watts != drawn:
                desk.card(watts)
                drawn = watts


def ask(url, key, model, text, tokens, leave_after=None):
    """One streamed request; `leave_after` pieces the consumer goes away."""
    body = {"model": model, "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), method="POST", headers={
        "authorization": f"Bearer {key}", "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=BOUND) as answer:
        for pieces, _ in enumerate(line for line in answer if line.startswith(b"data: ")):
            if pieces == leave_after:
                return


def serve(desk, server):
    """A session of sharing: two hubs, waves of requests with pauses, some consumers that leave."""
    desk.node("config", "set", "servers.urls", server)
    # What the simulated cards draw is nobody's process, and would be taken for another program's.
    desk.node("config", "set", "share.gpu_load", "never")
    service = until("a model is found", lambda: next((it["id"] for it in desk.node("status")["services"] if it["reachable"]), None))
    desk.node("bench", "--cap-sweep", SWEPT, "--repeats", "3")
    desk.node("share", service, "on", "--price", "800")
    garage = desk.start(BIN / "idlewatt-hub", "serve", "--name", "garage", "--listen", "127.0.0.1:0", "--fee", "5", "--data", desk.folder / "garage", says="listening on ")
    desk.node("join", desk.hub("invite", "create", "--account", "ada")["invite"])
    desk.node("hub", "start")
    status = until("both hubs are connected, a model is ready", lambda: ready(desk.node("status")))
    model = next(it["model"] for it in status["services"] if it["ready"])
    own = desk.node("hub", "show")
    friend = desk.hub("key", "create", "--account", "grace", "--credits", "100")["key"]
    hubs = [(f"{garage}/v1", friend), (own["url"], own["key"]), (f"{garage}/v1", friend)]
    for wave in range(8):
        asked = [threading.Thread(target=ask, args=(*hubs[(wave + i) % 3], model, ASKED[(wave * 3 + i) % len(ASKED)], 60 + 25 * ((wave + i) % 4), 20 if (wave, i) in ((2, 1), (5, 2)) else None))
                 for i in range(3)]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()
        # Nobody asks for a while: what the card draws then is part of the picture.
        time.sleep(5 if wave % 3 else 11)
    until("everything is settled", lambda: all(it.get("earned_ucr") is not None for it in desk.node("requests", "--limit", "100")))
    return garage


def ready(status):
    connected = [it for it in status["networks"] if it["state"] == "connected"]
    able = status["state"] == "sharing" and any(it["shared"] and it["ready"] for it in status["services"])
    return status if able and len(connected) == 2 else None


def sit_down(desk, stop):
    """Somebody comes back and moves the mouse, now and then."""
    place = 0
    while not stop.wait(0.5):
        place = (place + 40) % 800
        subprocess.run(["xdotool", "mousemove", str(200 + place), "300"], env=desk.env, check=False)


def main():
    with tempfile.TemporaryDirectory() as folder:
        desk, stop = Desk(pathlib.Path(folder)), threading.Event()
        try:
            desk.env["DISPLAY"] = ":" + desk.start("Xvfb", "-noreset", "-displayfd", "1", "-screen", "0", "1280x900x24")
            desk.card(RESTING)
            desk.home.mkdir()
            (desk.home / "idlewatt.toml").write_text(
                # What else runs on the machine that this runs on is not part of the picture.
                f'[share]\nidle_after = "1s"\nresume_hysteresis = "0s"\nmemory_short = true\n[servers]\nscan = false\n[energy]\nprice = "0.31 EUR/kWh"\n'
                f'[power]\ncap = "{LIMIT}"\n'
                f'[devices]\nnvml = "{BIN / "libidlewatt_simnvml.so"}"\n[keys]\nstore = "file"\n[control]\nlisten = "127.0.0.1:0"\n')
            desk.start(BIN / "idlewatt", "run", says="control panel: ")
            server = desk.start(sys.executable, ROOT / "tests/servers/llama_server.py", "--parallel", "3", "--threads", "1", "--ctx", "4096", says="listening on ")
            desk.runs = desk.started[-1].pid
            threading.Thread(target=follow, args=(desk, stop), daemon=True).start()
            garage = serve(desk, server)
            threading.Thread(target=sit_down, args=(desk, stop), daemon=True).start()
            until("somebody is here", lambda: desk.node("status")["state"] == "paused")
            desk.node("config", "set", "share.idle_after", "10m")
            desk.node("config", "set", "share.resume_hysteresis", "2m")
            desk.node("config", "set", "share.windows", "Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00")
            desk.node("config", "set", "share.apps", "blender, OBS Studio=cap")
            panel = desk.node("panel")["url"]
            subprocess.run(["node", "e2e/screens.mjs", PICTURES], cwd=ROOT / "ui", check=True,
                           env={**desk.env, "IDLEWATT_PANEL_URL": panel, "IDLEWATT_HUB_URL": garage})
            print(f"{len(desk.node('requests', '--limit', '100'))} requests served")
        finally:
            stop.set()
            desk.end()


main()
