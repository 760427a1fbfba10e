#!/usr/bin/env bash
# OpenAI's own Python and Node SDKs, unmodified, list models, chat, stream and raise their own errors
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_sdks
claim 'test(/^sdk::/)'
