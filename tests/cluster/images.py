"""The images of the cluster tests: built with buildah from the Dockerfile, handed to containerd layer by layer.

Needs root and the Debian packages buildah, mmdebstrap and containerd. What is kept between tests lies in CACHE, outside the
tree, and may be removed whenever nothing is built. A tag is a digest of what went into the image.

    python tests/cluster/images.py operator|trainer|standin    builds one and prints its name
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from registry import serve
from testbed.build import HOST_CACHE, cache_folder

ROOT = Path(__file__).parents[2]
CACHE = cache_folder("images")
SUITE = "bookworm"
# That variant only unpacks packages: dpkg's database, which a bill of materials reads, would stay empty.
_RECORD = (
    'for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb --field "$deb"; echo Status: install ok installed; echo; done'
    ' >> "$1/var/lib/dpkg/status"'
)
BASES = {
    "build": ["--variant=minbase", "--include=python3-venv,ca-certificates"],
    # No package manager, no coreutils. vLLM asks lscpu, through sh, and loads libnuma.
    "runtime": [
        "--variant=extract",
        "--include=base-files,python3,libpython3-stdlib,libstdc++6,dash,util-linux,libnuma1",
        f"--extract-hook={_RECORD}",
    ],
}
NO_DOCUMENTS = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
SOURCES = {
    "operator": ["operator", "manifests/crd.yaml", "requirements/operator.txt"],
    "trainer": ["trainer", "requirements/trainer-vllm-cpu.txt"],
}
MIRRORS = ["PIP_CERT", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"]
"""Settings of this machine that a build needs too."""


def operator_image() -> str:
    """The name of the operator's image, which is built if it is not there yet."""
    with _alone():
        return _target("operator")


def trainer_image() -> str:
    """The trainer's, with vLLM on CPUs. A change of our own source takes seconds, one of the locks minutes."""
    with _alone():
        return _target("trainer")


def standin_image() -> str:
    """The stages of tests/stages/standin: they keep the contract and compute nothing."""
    folder, dockerfile = ROOT / "tests/stages/standin", Path(__file__).with_name("standin.Dockerfile")
    with _alone():
        base = _target("operator")
        image = f"localhost/sppo-standin:{_digest([folder, dockerfile], base)}"
        return _build(image, dockerfile, folder, f"--build-arg=OPERATOR_IMAGE={base}")


def load(image: str, ctr: Sequence[str]) -> None:
    """Give an image to the containerd that `ctr` talks to, such as ["ctr", "-a", SOCKET, "-n", "k8s.io"].

    Moves the layers that it lacks: kilobytes after a change of our own source, where the trainer's image has 7 GB.
    """
    images = _images(ctr)
    if image in images:
        return
    # Layers of an image cannot be collected as garbage on the way.
    manifests = [json.loads(_output(*ctr, "content", "get", digest)) for digest in images.values()]
    present = {layer["digest"]: layer["size"] for manifest in manifests for layer in manifest["layers"]}
    with _alone(), serve(present, _folder("tmp")) as registry:
        target = f"docker://{registry.address}/{image.removeprefix('localhost/')}"
        # gzip without compression: the registry keeps it plain.
        how = ["--compression-format=gzip", "--compression-level=0", "--tls-verify=false"]
        _output(*_buildah("push"), *how, image, target)
        with subprocess.Popen(
            [*ctr, "image", "import", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as taking:
            assert taking.stdin is not None
            registry.write_archive(image, taking.stdin)
    if image not in _images(ctr):
        raise RuntimeError(f"containerd did not take {image}: see what ctr wrote")


def output_in(image: str, *command: str, stdin: str) -> str:
    """What a command prints in a container of an image."""
    container = _output(*_buildah("from"), "--pull-never", image).strip()
    try:
        return _output(*_buildah("run"), "--isolation=chroot", container, "--", *command, stdin=stdin)
    finally:
        _output(*_buildah("rm"), container)


def _images(ctr: Sequence[str]) -> dict[str, str]:
    """Our own images in containerd: the digests of their manifests, by name."""
    lines = _output(*ctr, "image", "ls").splitlines()[1:]
    return {name: digest for name, _, digest, *_ in map(str.split, lines) if name.startswith("localhost/sppo-")}


def _target(name: str) -> str:
    build, runtime = _base("build"), _base("runtime")
    dockerfile = ROOT / "Dockerfile"
    tools_from = [dockerfile, ROOT / "requirements/build.txt"]
    sources = [*tools_from, ROOT / ".dockerignore", *(ROOT / path for path in SOURCES[name])]
    image = f"localhost/sppo-{name}:{_digest(sources, build, runtime)}"
    settings = {"BASE_IMAGE": build, "RUNTIME_IMAGE": runtime, "ENGINE": "vllm-cpu", "UV_NO_CACHE": "false"}
    settings |= {variable: os.environ.get(variable, "") for variable in MIRRORS}
    arguments = [f"--build-arg={key}={value}" for key, value in settings.items() if value]
    tools = f"localhost/sppo-build:{_digest(tools_from, build)}"
    _build(tools, dockerfile, ROOT, *arguments, "--target=build")
    # buildah 1.28 mounts nothing for --mount=from=build if it took the stage from its cache.
    return _build(
        image, dockerfile, ROOT, *arguments, f"--target={name}", f"--build-context=build=container-image://{tools}"
    )


def _base(name: str) -> str:
    """A Debian system with Python, for the Dockerfile's BASE_IMAGE or RUNTIME_IMAGE."""
    image = f"localhost/sppo-{name}-base:{_digest([], SUITE, *BASES[name])}"
    if not _exists(image):
        with tempfile.TemporaryDirectory(dir=_folder("tmp")) as name_of_folder:
            folder = Path(name_of_folder)
            _output("mmdebstrap", *BASES[name], *NO_DOCUMENTS, SUITE, str(folder / "base.tar"))
            (folder / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
            _build(image, folder / "Dockerfile", folder)
    return image


def _build(image: str, dockerfile: Path, context: Path, *arguments: str) -> str:
    """Build `image` unless it is there; its name."""
    if _exists(image):
        return image
    uv_cache = Path(os.environ.get("UV_CACHE_DIR", HOST_CACHE / "uv"))
    uv_cache.mkdir(parents=True, exist_ok=True)
    _output(
        *_buildah("bud"),
        *("--layers", "--isolation=chroot", "--network=host", f"--tag={image}", f"--file={dockerfile}"),
        *("--volume=/etc/ssl/certs:/etc/ssl/certs:ro", f"--volume={uv_cache}:/home/sppo/.cache/uv"),
        *arguments,
        str(context),
    )
    return image


def _exists(image: str) -> bool:
    command = [*_buildah("inspect"), "--type=image", "--format={{.FromImageID}}", image]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _buildah(command: str) -> list[str]:
    """The start of a buildah command that keeps to CACHE."""
    roots = [f"--root={_folder('containers')}", f"--runroot={_folder('run')}"]
    return ["env", f"TMPDIR={_folder('tmp')}", "buildah", *roots, "--storage-driver=overlay", command]


def _output(*command: str, stdin: str = "") -> str:
    finished = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
    if finished.returncode:
        said = "\n".join(finished.stderr.strip().splitlines()[-8:])
        raise RuntimeError(f"{' '.join(command)} ended with {finished.returncode}:\n{said}")
    return finished.stdout


def _digest(paths: Iterable[Path], *words: str) -> str:
    """Of the words, and of the files below the paths but for what tools keep there."""
    digest = hashlib.sha256(json.dumps(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT)
            if file.is_file() and not any(re.fullmatch(r"__pycache__|[.].*_cache", part) for part in name.parts):
                digest.update(json.dumps([str(name), hashlib.sha256(file.read_bytes()).hexdigest()]).encode())
    return digest.hexdigest()[:12]


def _folder(name: str) -> Path:
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    """One build or push at a time, of all processes: two would do the same work."""
    with (_folder("run") / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print({"operator": operator_image, "trainer": trainer_image, "standin": standin_image}[sys.argv[1]]())
