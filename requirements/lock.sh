#!/bin/sh
# Compile the locks. run.txt is constrained by test.txt, so that one environment serves both.
set -eu
cd "$(dirname "$0")"
compile() { ../.venv/bin/uv pip compile -q --no-header --universal --python-version 3.11 --generate-hashes "$@"; }
compile test.in --override overrides.txt -o test.txt
compile run.in --override overrides.txt -c test.txt -o run.txt
compile demo.in --no-deps -o demo.txt
compile uv.in -o uv.txt
