#!/bin/sh
# Makes a fresh Debian 12 machine (root) ready: Debian packages, then .venv from the hash lock.
# Does nothing when nothing changed; what it did is recorded by content in .venv/.stamp.
set -eu
cd "$(dirname "$0")/.."
say() { printf '%s\n' "setup: $*"; }
stamp=$(cat tools/apt-packages.txt requirements/dev.lock pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1)
[ "$(cat .venv/.stamp 2>/dev/null || true)" = "$stamp" ] && exit 0

missing=
for package in $(sed 's/#.*//' tools/apt-packages.txt); do
  case $package in *=*) command -v "${package%%=*}" >/dev/null && continue; package=${package#*=} ;; esac
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    say "these Debian packages are missing:$missing" >&2
    say "hint: run as root, or: sudo apt-get install$missing" >&2
    exit 1
  fi
  say "installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # A package may not start its service here: the lab runs its own copies, in its own network namespaces.
  policy=/usr/sbin/policy-rc.d; made=
  if [ ! -e "$policy" ]; then
    made=1; printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT INT TERM
  fi
  apt-get update -qq
  # shellcheck disable=SC2086  # one word each
  apt-get install -qq -y --no-install-recommends $missing >/dev/null
  [ -z "$made" ] || rm -f "$policy"
fi

say "creating .venv from requirements/dev.lock"
[ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
printf '%s\n' "$stamp" > .venv/.stamp
say "ready"
