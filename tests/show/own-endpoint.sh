#!/usr/bin/env bash
# The host's own endpoint: this machine first, then the joined hubs; one that is down is not noticed
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^own_endpoint::/)'
