"""Every wait of an idle, paused resident, from strace: none may be for less than a second. Called by `timers.sh`.

A wait of a second or more that is interrupted goes on for what is left of it, and tokio waits for the last part of one by
itself (its wheel has slots of 4 s, 64 ms and 1 ms). Such parts are counted and told; a wait under a second that begins
by itself fails. `--poll MS` lets a thread of `sleep`s run in the engine's place: the check must see it.
"""

import collections
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

from waiting import until

BIN = pathlib.Path(sys.argv[1])
SETTLE, WATCH = 30, 60
WAITS = "timerfd_settime,epoll_wait,epoll_pwait,epoll_pwait2,futex,clock_nanosleep,nanosleep,poll,ppoll,select,pselect6,setitimer,timer_settime"
# A wait that ends at the moment of one before is what is left of that, seconds; strace itself takes some of them.
SAME = 0.05
# Slots of 4 s, 64 ms, 1 ms.
PARTS = 3

Wait = collections.namedtuple("Wait", "thread call begun seconds ended timed_out")


def seconds(text):
    """The first `{tv_sec=…, tv_nsec=…}` or `{…tv_usec=…}` of a text; None without one."""
    found = re.search(r"tv_sec=(\d+), tv_([nu])sec=(\d+)", text)
    return found and int(found[1]) + int(found[3]) / (1e9 if found[2] == "n" else 1e6)


def length(call, arguments, begun, ahead):
    """For how long a call waits at most, seconds; None for ever, or where it is no wait. `ahead`: of the wall clock over
    the monotonic one."""
    if call in ("epoll_wait", "epoll_pwait"):
        ms = int(re.search(r", \d+, (-?\d+)(?:, (?:NULL|\[.*\]), \d+)?$", arguments)[1])
        return None if ms < 0 else ms / 1000
    if call == "poll":
        ms = int(arguments.rsplit(", ", 1)[1])
        return None if ms < 0 else ms / 1000
    if call == "futex":
        if "FUTEX_WAIT" not in arguments:
            return None
        until = seconds(arguments)
        if until is None or "FUTEX_WAIT_BITSET" not in arguments:
            return until
        return until - (begun if "FUTEX_CLOCK_REALTIME" in arguments else begun - ahead)
    if call in ("timerfd_settime", "timer_settime", "setitimer"):
        value = seconds(re.split(r"it_value=", arguments)[1]) if "it_value=" in arguments else None
        if value and "ABSTIME" in arguments:
            return value - (begun - ahead)
        return value or None
    if call == "clock_nanosleep":
        until = seconds(arguments)
        return until - (begun - ahead) if "TIMER_ABSTIME" in arguments else until
    return seconds(arguments)


def waits(trace, ahead):
    """Every wait, in the order in which they began."""
    found, open_calls = [], {}
    for line in trace.splitlines():
        read = re.match(r"(\d+) +(\d+\.\d+) (.*)", line)
        if not read:
            continue
        thread, at, rest = read[1], float(read[2]), read[3]
        if rest.endswith("<unfinished ...>"):
            open_calls[thread] = (at, rest.removesuffix("<unfinished ...>").rstrip())
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
        begun, text = (at, rest)
        if resumed:
            if thread not in open_calls:
                continue
            begun, before = open_calls.pop(thread)
            text = before + (" " if before.endswith(",") else "") + resumed[1].lstrip()
        call = re.match(r"(\w+)\((.*)\) += (.*)$", text)
        if call:
            # The time of a call that was not interrupted is that of its beginning; it took what strace -T says.
            took = re.search(r"<(\d+\.\d+)>$", call[3])
            timed_out = call[3].startswith("0") and call[1] != "futex" or "ETIMEDOUT" in call[3]
            span = length(call[1], call[2], begun, ahead)
            found.append(Wait(thread, call[1], begun, span, begun + float(took[1] if took else 0), timed_out))
    for thread, (begun, text) in open_calls.items():
        call = re.match(r"(\w+)\((.*)$", text)
        # It waits still: what it prints at its end is not there, so only what futex and sleeps say is known.
        if call and call[1] in ("futex", "clock_nanosleep", "nanosleep"):
            found.append(Wait(thread, call[1], begun, length(call[1], call[2], begun, ahead), float("inf"), False))
    return sorted(found, key=lambda wait: wait.begun)


def judged(all_waits, since):
    """Waits under a second since a moment: parts of longer ones by call, and those that began by themselves."""
    parts, alone = collections.Counter(), []
    last, ends = {}, collections.defaultdict(list)
    for wait in all_waits:
        if wait.seconds is None or wait.seconds == 0:
            # Looking without waiting is no timer, and ends no wait either.
            continue
        end = wait.begun + wait.seconds
        before, step = last.get(wait.thread, (None, 0))
        if wait.seconds >= 1:
            step = 0
            ends[wait.thread] = ends[wait.thread][-20:] + [end]
        elif any(abs(end - known) < SAME for known in ends[wait.thread]):
            parts[wait.call] += wait.begun >= since
        elif before and before.timed_out and wait.begun - before.ended < SAME and step < PARTS:
            step += 1
            ends[wait.thread] = ends[wait.thread][-20:] + [end]
            parts[wait.call] += wait.begun >= since
        elif wait.begun >= since:
            alone.append(wait)
        last[wait.thread] = (wait, step)
    return parts, alone


def main():
    started, folder = [], pathlib.Path(tempfile.mkdtemp())
    log, trace = open(folder / "log", "w"), folder / "trace"

    def start(*command, env=None):
        # A group of its own: what strace runs does not end with it.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env, start_new_session=True)
        started.append(process)
        return process

    def first_line(process, prefix):
        for line in process.stdout:
            if line.startswith(prefix):
                return line[len(prefix):].strip()
        sys.exit(f"it did not print {prefix!r}")

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
        ahead = time.time() - time.monotonic()
        command = [BIN / "idlewatt", "run", "--tray", "--listen", "127.0.0.1:0"]
        if sys.argv[2:3] == ["--poll"]:
            # Beside it, in the same trace.
            script = f'while :; do sleep {int(sys.argv[3]) / 1000}; done & exec "$@"'
            command = ["sh", "-c", script, "sh", *command]
        engine = start("strace", "-f", "-q", "-ttt", "-T", "-e", f"trace={WAITS}", "-e", "signal=none", "-o", trace, "--",
                       *command, env=env)
        first_line(engine, "control panel: ")
        created = subprocess.run([BIN / "idlewatt-hub", "invite", "create", "--account", "host", "--json", "--data",
                                  folder / "hub"], check=True, capture_output=True, text=True).stdout
        invite = json.loads(created)["invite"]
        # Traced, it takes its time to find its key.
        until("it joins", lambda: not subprocess.run([BIN / "idlewatt", "join", invite], env=env, capture_output=True).returncode, 60)
        subprocess.run([BIN / "idlewatt", "pause"], check=True, env=env, capture_output=True)
        since = time.time() + SETTLE
        # The one wait here that is for a time: it is the time that is claimed.
        until("the time has passed", lambda: time.time() >= since + WATCH, SETTLE + WATCH + 5)
        found = waits(trace.read_text(), ahead)
        parts, alone = judged(found, since)
        seen = [wait for wait in found if wait.begun >= since]
        shortest = min((wait.seconds for wait in seen if wait.seconds and wait.seconds >= 1), default=None)
        told = ", ".join(f"{count} in {call}" for call, count in sorted(parts.items())) or "none"
        print(f"engine, paused, tray, {WATCH} s: {len(seen)} waits of {len({wait.thread for wait in seen})} threads; shortest "
              f"timer {'none' if shortest is None else f'{shortest:.1f} s'}; last parts of longer ones: {told}; "
              f"under 1 s by themselves: {len(alone)}")
        for wait in alone[:10]:
            print(f"  thread {wait.thread}: {wait.call} for {wait.seconds * 1000:.1f} ms, "
                  f"{wait.begun - since:.2f} s into the watch")
        sys.exit(bool(alone) or not seen)
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


main()
