#!/usr/bin/env bash
# The GPU is given back: 200 yields by input each on X11 and Wayland, 50 by the panic button, 50 for a game, memory checked
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_apt "show a screen that nobody sees, and move its mouse" xvfb xdotool dbus gamemode
claim 'test(/^yielding::/)'
