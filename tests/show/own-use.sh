#!/usr/bin/env bash
# The host's own prompt, sent straight to the model server with all slots full of shared work, comes first
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^own_use::/)'
