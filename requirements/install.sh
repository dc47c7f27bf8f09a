#!/bin/sh
# Install the locked requirements named as arguments, and this project itself, into .venv.
set -eu
cd "$(dirname "$0")/.."

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $PYTHON is $("$PYTHON" --version 2>&1): install Python 3.11 or later, or name one with PYTHON=…" >&2
    exit 69
}
if [ ! -x .venv/bin/pip ] && ! "$PYTHON" -m venv .venv >/dev/null 2>&1; then
    # Debian and Ubuntu keep the module that makes virtual environments in a package of its own.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get -qq update && apt-get -qq install -y python3-venv
        "$PYTHON" -m venv .venv
    else
        echo "error: $PYTHON cannot make a virtual environment: run 'sudo apt-get install python3-venv', then again" >&2
        exit 69
    fi
fi
.venv/bin/pip install -q --require-hashes -r requirements/uv.txt
for name in "$@"; do
    # --no-deps: a lock lists everything, and demo.txt leaves out on purpose what its model does not need.
    .venv/bin/uv pip install -q --python .venv --no-deps --require-hashes -r "requirements/$name.txt"
done
# Without build isolation, hatchling comes from the lock instead of an unpinned download.
.venv/bin/uv pip install -q --python .venv --no-deps --no-build-isolation -e operator -e trainer
