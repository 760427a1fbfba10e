#!/usr/bin/env bash
# No prompt, answer or key on disk or in logs; no path, address or name of the host's in an answer
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^privacy::/)'
