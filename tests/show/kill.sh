#!/usr/bin/env bash
# kill -9 of hub, node and model server in mid-stream: an honest end, the right bill, back within 5 s
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^kill::/)'
