#!/usr/bin/env bash
# joules of a command by a card's and a processor's sensor, its exit code, signals and Ctrl-C, a table for a spreadsheet
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
claim 'test(/^measure::/)'
