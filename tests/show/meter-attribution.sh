#!/usr/bin/env bash
# Two kinds of request through one another: each one's marginal energy within 5 % of the truth (p90) from 2 s on; the stated error covers it in >= 95 %
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
# Twenty simulated minutes of each of 100 servers: an optimised build.
cargo test --quiet --locked --release -p idlewatt-core --test metering -- --nocapture --test-threads 1 attribution::
