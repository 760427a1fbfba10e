#!/usr/bin/env bash
# a token's joules over power limits on a real llama.cpp, published to a real hub and verified; limits always given back
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^bench::/)'
