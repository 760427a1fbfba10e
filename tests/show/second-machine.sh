#!/usr/bin/env bash
# a second machine behind NAT joins by pasting one invite and gets answers from the first's model over pinned TLS; a machine in the middle gets nothing
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
if [[ $(id -u) != 0 ]] || ! ip netns list >/dev/null 2>&1; then
  say "Skipped: network namespaces need root here (and the program ip)."
  exit 0
fi
need_apt "put a router between two machines" iproute2 nftables curl
need_model_server
need_rust
need_node
ui_packages
ui_build
cargo build --quiet --locked -p idlewatt -p idlewatt-hub
"$IDLEWATT_PYTHON" tests/show/second_machine.py "$CARGO_TARGET_DIR/debug"
