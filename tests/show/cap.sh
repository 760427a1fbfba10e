#!/usr/bin/env bash
# A running node under load holds its cap by each of its three means: worst ten seconds <= 1.02 x the cap
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^power::/)'
