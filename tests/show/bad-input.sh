#!/usr/bin/env bash
# Every wrong input has one clear answer and a documented exit code
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^(bad_input|homes)::/)'
