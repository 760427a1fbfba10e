"""Opens the desktop window under Xvfb on a private session bus. Called by `desktop-smoke.sh`.

Every wait is for something that can be seen, within 30 s.
"""

import ctypes
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

import waiting

BIN = pathlib.Path(sys.argv[1])
BOUND = 30


def until(what, seen):
    return waiting.until(what, seen, BOUND)


def toolkit_processes(env):
    """Processes of this display with GTK or WebKit mapped."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or f"IDLEWATT_HOME={env['IDLEWATT_HOME']}" not in (folder / "environ").read_text():
                continue
            if re.search(r"libgtk-|libwebkit2gtk", (folder / "maps").read_text()):
                found.append(int(folder.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def windows(env):
    found = subprocess.run(["xdotool", "search", "--onlyvisible", "--name", "Idlewatt"], env=env, capture_output=True, text=True)
    return found.stdout.split()


def close(env, window):
    """What the close button of a window manager does; `xdotool windowclose` would destroy the window under GTK's feet."""
    x = ctypes.CDLL("libX11.so.6")
    x.XOpenDisplay.restype = ctypes.c_void_p
    x.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x.XOpenDisplay(env["DISPLAY"].encode()))
    protocols, delete = (x.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    # XClientMessageEvent, in an XEvent of 24 longs: 33 is ClientMessage, 32 the format of its five longs.
    event = (ctypes.c_long * 24)(33, 0, 1, display.value, int(window), protocols, 32, delete, 0)
    x.XSendEvent(display, ctypes.c_ulong(int(window)), 0, ctypes.c_long(0), ctypes.byref(event))
    x.XCloseDisplay(display)


def painted(env, picture):
    """Whether the page shows the engine's state: seen, an empty page has 2 colours, its frame 500, the overview 1,200."""
    subprocess.run(["import", "-window", "root", picture], env=env, check=True)
    colours = subprocess.run(["identify", "-format", "%k", picture], capture_output=True, text=True, check=True)
    return int(colours.stdout) > 800


def status(env):
    ran = subprocess.run([BIN / "idlewatt", "status", "--json"], env=env, capture_output=True, text=True)
    return json.loads(ran.stdout) if ran.returncode == 0 else None


def main():
    folder = pathlib.Path(tempfile.mkdtemp())
    log = open(folder / "log", "w+")
    started, claims = [], 0
    env = {**os.environ, "IDLEWATT_HOME": str(folder / "home"), "NO_AT_BRIDGE": "1",
           "WEBKIT_DISABLE_COMPOSITING_MODE": "1", "LIBGL_ALWAYS_SOFTWARE": "1"}
    env.pop("WAYLAND_DISPLAY", None)

    def start(*command):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        started.append(process)
        return process

    def claim(text):
        nonlocal claims
        claims += 1
        print("ok     ", text)

    try:
        display = start("Xvfb", "-noreset", "-displayfd", "1", "-screen", "0", "1280x900x24").stdout.readline()
        env["DISPLAY"] = ":" + display.strip()
        env["DBUS_SESSION_BUS_ADDRESS"] = start("dbus-daemon", "--session", "--nofork", "--print-address=1").stdout.readline().strip()
        pathlib.Path(env["IDLEWATT_HOME"]).mkdir()
        (folder / "home/idlewatt.toml").write_text('[control]\nlisten = "127.0.0.1:0"\n[keys]\nstore = "file"\n')

        desktop = start(BIN / "idlewatt-desktop")
        window = until("a window named Idlewatt", lambda: desktop.poll() is None and windows(env))[0]
        claim("the window opens")
        assert until("the engine that it started", lambda: status(env))["state"]
        claim("it started the resident engine")
        picture = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else folder / "window.png")
        until("the page shows the engine's state", lambda: painted(env, picture))
        claim("the page shows the engine's state")
        subprocess.run([BIN / "idlewatt-desktop"], env=env, stdout=log, stderr=log, timeout=BOUND, check=True)
        assert len(windows(env)) == 1
        claim("a second start shows the one window and ends")
        assert toolkit_processes(env)
        close(env, window)
        until("the window's process ends", lambda: desktop.poll() is not None)
        assert desktop.returncode == 0, f"the window's process ended with {desktop.returncode}"
        assert (folder / "home/data/window.json").exists(), "the window's place is not remembered"
        until("no process with GTK or WebKit is left", lambda: not toolkit_processes(env))
        claim("closed, nothing of GTK or WebKit is left")
        assert status(env)["state"]
        claim("the engine goes on")
        print(f"{claims} passed, 0 failed")
    except (AssertionError, subprocess.SubprocessError, OSError) as error:
        log.seek(0)
        resident = folder / "home/run/resident.log"
        print(f"FAILED  {error}\n{log.read()[-3000:]}\n{resident.read_text()[-2000:] if resident.exists() else ''}")
        print(f"{claims} passed, 1 failed")
        sys.exit(1)
    finally:
        control = folder / "home/run/control.json"
        if control.exists():
            try:
                os.kill(json.loads(control.read_text())["pid"], signal.SIGTERM)
            except (OSError, ValueError):
                pass
        for process in reversed(started):
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


main()
