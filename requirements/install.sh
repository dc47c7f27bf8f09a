#!/bin/sh
# Install the locked requirements named as arguments, and this project itself, into .venv.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "error: $1" >&2
    exit 69
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is $("$PYTHON" --version 2>&1): install Python 3.11 or later, or name one with PYTHON=…"
if [ ! -x .venv/bin/pip ] && ! "$PYTHON" -m venv .venv >/dev/null 2>&1; then
    # Debian and Ubuntu keep ensurepip, which puts pip into a virtual environment, in a package of its own per version.
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$PYTHON cannot make a virtual environment: install its modules venv and ensurepip (on Debian and Ubuntu: sudo apt-get install $package), then run this again"
    fi
    apt-get -qq update || true
    apt-get -qq install -y "$package" || apt-get -qq install -y python3-venv || true
    "$PYTHON" -m venv .venv ||
        fail "$PYTHON cannot make a virtual environment, and neither $package nor python3-venv helped: name another Python with PYTHON=…"
fi
.venv/bin/pip install -q --require-hashes -r requirements/uv.txt
for name in "$@"; do
    # --no-deps: a lock lists everything, and demo.txt leaves out on purpose what its model does not need.
    .venv/bin/uv pip install -q --python .venv --no-deps --require-hashes -r "requirements/$name.txt"
done
# Without build isolation, hatchling comes from the lock instead of an unpinned download.
.venv/bin/uv pip install -q --python .venv --no-deps --no-build-isolation -e operator -e trainer
