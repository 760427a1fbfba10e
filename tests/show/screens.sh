#!/usr/bin/env bash
# Every screen, light and dark, from a real run with a simulated card, into docs/screenshots
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_node
need_apt "run a desk without a screen and look at the panel" xvfb xdotool chromium
need_model_server
ui_packages
ui_build
cargo build --quiet --locked -p idlewatt -p idlewatt-hub -p idlewatt-simnvml
"$IDLEWATT_PYTHON" tests/show/screens.py "$CARGO_TARGET_DIR/debug" "$ROOT/docs/screenshots"
