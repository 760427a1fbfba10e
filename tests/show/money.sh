#!/usr/bin/env bash
# Energy costs what it cost when it was used, split at changes of the price; the wall is what the plug says, or unknown
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^money::/)'
