#!/usr/bin/env bash
# Engine with tray, paused, nothing happens: in 60 s no timer under 1 s is set (strace of every wait of every thread)
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_node
need_apt "watch what a program waits for, and run the tray without a screen" strace xvfb dbus
ui_packages
ui_build
cargo build --quiet --locked -p idlewatt -p idlewatt-hub
python3 tests/show/timers.py "$CARGO_TARGET_DIR/debug"
