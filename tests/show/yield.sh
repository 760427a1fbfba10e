#!/usr/bin/env bash
# The GPU is given back: 200 yields by input, 50 by the panic button, memory checked, host's models left alone
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_apt "show a screen that nobody sees, and move its mouse" xvfb xdotool
claim 'test(/^yielding::/)'
