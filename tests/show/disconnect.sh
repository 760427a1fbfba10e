#!/usr/bin/env bash
# A consumer that leaves stops the generation within 1 s
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^disconnect::/)'
