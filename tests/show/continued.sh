#!/usr/bin/env bash
# Answers that one machine begins and another goes on with equal those left alone, on the real llama.cpp at temperature 0
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
failed=0
claim 'test(/^continued::/)' || failed=1
# By text too, which the hub takes only where there are no ids.
cargo nextest run --profile claim --locked -p idlewatt-servers --run-ignored all --no-capture --status-level pass \
  -E 'test(/^real::going_on::/)' || failed=1
exit "$failed"
