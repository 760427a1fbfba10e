#!/usr/bin/env bash
# The tray's menu, read and clicked over D-Bus as a panel does it, drawn into docs/screenshots/tray.png
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_node
need_apt "run the tray without a screen and draw what it tells" xvfb dbus chromium
ui_packages
ui_build
cargo build --quiet --locked -p idlewatt
cargo build --quiet --locked -p idlewatt-tray --example read_out
python3 tests/show/tray.py "$CARGO_TARGET_DIR/debug" docs/screenshots/tray.png
