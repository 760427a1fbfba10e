#!/usr/bin/env bash
# The window opens on the engine it starts, only once, and when it closes nothing of GTK or WebKit is left
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_node
need_desktop
need_apt "run the window without a screen" xvfb dbus xdotool imagemagick
ui_packages
ui_build
cargo build --quiet --locked -p idlewatt -p idlewatt-desktop
python3 tests/show/desktop.py "$CARGO_TARGET_DIR/debug" "$@"
