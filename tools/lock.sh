#!/bin/sh
# Renews the two hash locks. Only names, versions and hashes are recorded, no download addresses.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
common="--generate-hashes --no-emit-index-url --no-header --quiet"
# The developer's machine: Debian 12 (Python 3.11).
$uv pip compile pyproject.toml --all-extras --python-version 3.11 $common "$@" -o requirements/dev.lock
# The device: Debian 13 (Python 3.13); exactly what the image carries.
$uv pip compile pyproject.toml --extra device --python-version 3.13 $common "$@" -o requirements/device.lock
