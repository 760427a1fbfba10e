#!/usr/bin/env bash
# A receipt verifies offline, and fails on any flipped byte
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^receipts::/)'
