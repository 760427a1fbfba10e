"""Reads the tray of a real `idlewatt run --tray` over D-Bus, clicks in it, and draws what was told. Called by `tray.sh`.

The words, the order and the glyph's pixels are the answers of `com.canonical.dbusmenu` and `org.kde.StatusNotifierItem`;
only the frame round them is drawn here.
"""

import base64
import html
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

BIN, PICTURE = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
CLICKS = ["Pause until tomorrow", "Resume sharing"]
STYLE = """
body{margin:0;font:14px/1.4 Inter,system-ui,sans-serif;display:flex;background:#d9d6cf}
section{padding:20px 24px 28px;width:420px;background:#e9e7e1;color:#1d1c1a}
section.dark{background:#131312;color:#eeece6}
.bar{display:flex;gap:12px;align-items:center;margin-bottom:8px}
.bar img{width:24px;height:24px;padding:6px;border-radius:6px;background:#131312;flex:none}
.dark .bar img{background:#2b2a27}
.tip{white-space:pre-line;padding:6px 10px;border-radius:6px;background:#fff;font-size:13px;box-shadow:0 0 0 1px #0002}
.dark .tip{background:#242422;box-shadow:0 0 0 1px #fff2}
ul{list-style:none;margin:0 0 20px;padding:6px;border-radius:10px;background:#fff;width:330px;box-shadow:0 0 0 1px #0002}
.dark ul{background:#1f1f1d;box-shadow:0 0 0 1px #fff2}
li{padding:6px 10px;border-radius:6px} li.off{opacity:.6} hr{border:0;border-top:1px solid #8884;margin:5px 4px}
h2{font-size:12px;font-weight:500;opacity:.7;margin:0 0 6px}
"""


def png(argb):
    """A PNG of square ARGB pixels in hexadecimal."""
    raw = bytes.fromhex(argb)
    size = int((len(raw) / 4) ** 0.5)
    rows = b""
    for y in range(size):
        line = raw[y * size * 4:(y + 1) * size * 4]
        rows += b"\0" + b"".join(line[i + 1:i + 4] + line[i:i + 1] for i in range(0, len(line), 4))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">2I5B", size, size, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def drawn(title, told):
    glyph = base64.b64encode(png(told["glyph"])).decode()
    lines = ""
    for line in told["menu"]:
        label = html.escape(line["label"].replace("__", "_"))
        lines += "<hr>" if line["separator"] else f'<li class="{"" if line["enabled"] else "off"}">{label}</li>'
    return (f'<h2>{html.escape(title)} · {told["status"]}</h2><div class="bar"><img src="data:image/png;base64,{glyph}">'
            f'<div class="tip">{html.escape(told["tooltip"])}</div></div><ul>{lines}</ul>')


def main():
    started, folder = [], pathlib.Path(tempfile.mkdtemp())

    def start(*command, env=None):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        started.append(process)
        return process

    try:
        env = {**os.environ, "IDLEWATT_HOME": str(folder / "home")}
        env.pop("WAYLAND_DISPLAY", None)
        env["DISPLAY"] = ":" + start("Xvfb", "-noreset", "-displayfd", "1").stdout.readline().strip()
        # A keyring that waits for a person would put its own line into the menu.
        (folder / "home").mkdir()
        (folder / "home/idlewatt.toml").write_text('[keys]\nstore = "file"\n')
        bus = start("dbus-daemon", "--session", "--nofork", "--print-address=1").stdout.readline().strip()
        env["DBUS_SESSION_BUS_ADDRESS"] = bus
        start(BIN / "idlewatt", "run", "--tray", "--listen", "127.0.0.1:0", env=env)
        ran = subprocess.run([BIN / "examples/read_out", *CLICKS], env=env, stdout=subprocess.PIPE, text=True,
                             check=True, timeout=60)
        told = [json.loads(line) for line in ran.stdout.splitlines()]
        titles = ["As it starts", f"After a click on “{CLICKS[0]}”"]
        assert any(line["label"] == CLICKS[1] for line in told[1]["menu"]), told[1]["menu"]
        assert any(line["label"] == CLICKS[0] for line in told[2]["menu"]), told[2]["menu"]
        both = "".join(drawn(*it) for it in zip(titles, told))
        page = folder / "page.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><section>{both}</section>"
                        f'<section class="dark">{both}</section>')
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-background-networking", "--hide-scrollbars",
                        "--force-device-scale-factor=2", "--window-size=936,640", f"--screenshot={PICTURE}",
                        page.as_uri()], check=True, capture_output=True, timeout=60)
        for line in told[0]["menu"]:
            print("---" if line["separator"] else line["label"] + ("" if line["enabled"] else "  (status)"))
        print("3 read-outs, 2 clicks: passed")
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


main()
