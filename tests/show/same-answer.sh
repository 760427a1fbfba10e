#!/usr/bin/env bash
# At temperature 0, text and usage through the hub equal the model server's own byte for byte
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^main_path::/)'
