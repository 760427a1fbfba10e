"""Measures what stays resident: the engine with its tray, paused, and an idle hub. Called by `small.sh`.

Xvfb and a private session bus stand in for a desktop. Each program settles for 20 s, then is watched for 60 s.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(sys.argv[1])
SETTLE, WATCH = 20, 60


def pss_mb(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1)) / 1024


def cpu_ms(pid):
    """Of all threads, from the scheduler: the clock ticks of `stat` are too coarse for 60 ms."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e6


def switches(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M).group(1))
    return total


def watch(pid):
    time.sleep(SETTLE)
    cpu, switched = cpu_ms(pid), switches(pid)
    time.sleep(WATCH)
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
    toolkit = sorted({line.split("/")[-1] for line in maps.splitlines() if re.search(r"libgtk|libwebkit", line)})
    threads = len(list(pathlib.Path(f"/proc/{pid}/task").iterdir()))
    return pss_mb(pid), (cpu_ms(pid) - cpu) * 60 / WATCH, (switches(pid) - switched) / WATCH, threads, toolkit


def first_line(process, prefix):
    for line in process.stdout:
        if line.startswith(prefix):
            return line[len(prefix):].strip()
    sys.exit(f"it did not print {prefix!r}")


def main():
    started, folder = [], pathlib.Path(tempfile.mkdtemp())
    log = open(folder / "log", "w")

    def start(*command, env=None):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        started.append(process)
        return process

    try:
        xvfb = start("Xvfb", "-noreset", "-displayfd", "1", "-screen", "0", "1280x800x24")
        display = ":" + first_line(xvfb, "")
        bus = start("dbus-daemon", "--session", "--nofork", "--print-address=1")
        env = {**os.environ, "DISPLAY": display, "DBUS_SESSION_BUS_ADDRESS": first_line(bus, ""),
               "IDLEWATT_HOME": str(folder / "home")}
        env.pop("WAYLAND_DISPLAY", None)
        hub = start(BIN / "idlewatt-hub", "serve", "--listen", "127.0.0.1:0", "--data", str(folder / "hub"))
        first_line(hub, "listening on ")
        # A keyring that some desktop left on this machine would ask for a password that nobody gives.
        subprocess.run([BIN / "idlewatt", "config", "set", "keys.store", "file"], check=True, env=env, capture_output=True)
        engine = start(BIN / "idlewatt", "run", "--tray", "--listen", "127.0.0.1:0", env=env)
        first_line(engine, "control panel: ")
        created = subprocess.run([BIN / "idlewatt-hub", "invite", "create", "--account", "host", "--json", "--data",
                                  folder / "hub"], check=True, capture_output=True, text=True).stdout
        invite = json.loads(created)["invite"]
        subprocess.run([BIN / "idlewatt", "join", invite], check=True, env=env, capture_output=True)
        subprocess.run([BIN / "idlewatt", "pause"], check=True, env=env, capture_output=True)
        pss, cpu, switched, threads, toolkit = watch(engine.pid)
        hub_pss = pss_mb(hub.pid)
        good = pss <= 20 and cpu <= 60 and switched <= 3 and hub_pss <= 30 and not toolkit
        print(f"engine, paused, tray: PSS {pss:.1f} MB, CPU {cpu:.0f} ms/min, {switched:.2f} voluntary switches/s, "
              f"{threads} threads, toolkit mapped: {', '.join(toolkit) or 'none'}")
        print(f"hub, idle, one node: PSS {hub_pss:.1f} MB")
        sys.exit(not good)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder)


main()
