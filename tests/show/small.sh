#!/usr/bin/env bash
# Engine with tray, paused: PSS <= 20 MB, CPU <= 60 ms a minute, <= 3 voluntary switches a second; hub idle: PSS <= 30 MB
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_node
need_apt "run the tray without a screen" xvfb dbus
need_model_server
ui_packages
ui_build
say "Building optimised binaries."
cargo build --quiet --locked --release -p idlewatt -p idlewatt-hub
python3 tests/show/resident.py "$CARGO_TARGET_DIR/release"
