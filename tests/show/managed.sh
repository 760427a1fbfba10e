#!/usr/bin/env bash
# A llama-server of the engine's own: gone within 1 s of a killed engine, planned as llama.cpp loads it, unharmed by damaged models
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^managed::/)'
