#!/usr/bin/env bash
# 10,000 idle nodes on one hub process: at most 32 KiB each, no heartbeat missed, back smeared after kill -9 of the hub
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
cargo build --quiet --locked --release -p idlewatt-hub -p idlewatt-measuring
# One connection is one file, on either side.
ulimit -n "$(ulimit -Hn)"
exec python3 tests/bench/ten_thousand.py "$CARGO_TARGET_DIR/release" "${NODES:-10000}"
