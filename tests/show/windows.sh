#!/usr/bin/env bash
# The three programs, built for Windows and run under Wine: doctor, hub, a real request, the tray, and a model server of its own
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_node
need_windows_model_server
need_apt "build for Windows" rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64
need_apt "run Windows programs without a screen" wine64 xvfb xdotool imagemagick
ui_packages
ui_build

# The distribution's compiler carries the standard library's source, of which it builds the one for Windows.
target=x86_64-pc-windows-gnu
export CARGO_TARGET_DIR=$CACHE/target-win
PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo build --quiet --locked \
  -Zbuild-std=std,panic_unwind --target "$target" -p idlewatt -p idlewatt-hub -p idlewatt-desktop
built=$CARGO_TARGET_DIR/$target/debug
# The rooms that Windows has files of its own for; of the last two what needs no Linux.
for rooms in "-p idlewatt-presence -p idlewatt-machine" "--lib -p idlewatt-devices -p idlewatt-servers"; do
  # shellcheck disable=SC2086
  PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo test --quiet --locked --no-run \
    --message-format json -Zbuild-std=std,panic_unwind --target "$target" $rooms
done >"$built/tests.jsonl"
x86_64-w64-mingw32-gcc -shared -O1 -Wall -Werror -o "$built/bcryptprimitives.dll" \
  tests/show/wine/bcryptprimitives.c -ladvapi32 -luser32
"$IDLEWATT_PYTHON" tests/show/windows.py "$built" "$WINDOWS_SERVER" "${1:-docs/screenshots/windows-tray.png}"
