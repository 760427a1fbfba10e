#!/usr/bin/env bash
# every parser that meets the network takes a million mutations of its committed corpus without a panic, and holds its promise on each
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
export IDLEWATT_FUZZ=${IDLEWATT_FUZZ:-1000000}
# With optimisation: a debug build would take an hour.
cargo test --quiet --locked --release -p idlewatt-protocol -p idlewatt-hub-core --test fuzz
echo "7 parsers, $IDLEWATT_FUZZ inputs each"
