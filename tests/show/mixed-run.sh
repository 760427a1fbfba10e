#!/usr/bin/env bash
# 200 requests and more, 8 at once, some cancelled: one receipt each, and books that agree to the micro-credit
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^mixed_run::/)'
