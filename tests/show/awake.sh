#!/usr/bin/env bash
# Kept awake only while sharing; handed back before sleep within logind's limit; a day's hours add up to the millisecond
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^awake::/)'
