#!/usr/bin/env bash
# The whole workspace, desktop app included, type-checked for macOS; linking and running need a Mac
# shellcheck source=script/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../script/lib.sh"
need_node
need_python "compile C for macOS" ziglang==0.17.1
need_apt "compile for macOS" rustc-web cargo-web rust-web-src
ui_packages
ui_build

# The distribution's compiler carries the standard library's source, of which it checks the one for macOS.
target=aarch64-apple-darwin
export CARGO_TARGET_DIR=$CACHE/target-mac CC_aarch64_apple_darwin=$ROOT/tests/show/macos-cc AR_aarch64_apple_darwin=ar
PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo check --quiet --locked \
  -Zbuild-std=std,panic_unwind --target "$target" --workspace
printf '%s: type-checked in %d s\n' "$target" "$SECONDS"
