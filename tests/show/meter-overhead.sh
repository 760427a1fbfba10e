#!/usr/bin/env bash
# Ten readings a second of 4 cards, and metering 50 requests a second: <= 1 % of one core
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
cargo test --quiet --locked --release -p idlewatt-devices --test overhead -- --nocapture
