"""The images: built from the checkout, named by their content, and loaded into the cluster that is used.

An image is built only when what it is made of has changed. In the local cluster it is known by two tags: the version,
which the examples name, and the version with the content's fingerprint, which makes a rollout follow every change.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cluster import layout as where
from cluster.console import Failure, step
from cluster.layout import Layout
from cluster.node import PAUSE_IMAGE, ctr

VERSION = "0.1.0"
COREDNS_IMAGE = f"{where.IMAGE_PREFIX}/coredns:local"
METRICS_SERVER_IMAGE = f"{where.IMAGE_PREFIX}/metrics-server:local"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"
# Made again when what is in it changes.
_BASE = f"localhost/ropewalk-base:trixie-{hashlib.sha256(_BASE_PACKAGES.encode()).hexdigest()[:12]}"
_IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache"}
# A machine behind a proxy or a mirror has its settings here. They serve the build and stay out of the image.
_MACHINE_SETTINGS = (
    "/etc/pip.conf",
    "/etc/ssl/certs",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)


@dataclass(frozen=True)
class Image:
    """An image of this repository: its name, its build context and its build arguments."""

    name: str
    context: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    file: str = "Dockerfile"

    def fingerprint(self, checkout: Path | None = None) -> str:
        """Twelve hexadecimal digits that change with anything the image is made of."""
        digest = hashlib.sha256(repr((sorted(self.arguments.items()), _BASE_PACKAGES)).encode())
        root = (checkout or where.REPOSITORY) / self.context
        for path in sorted(root.rglob("*")):
            if path.is_file() and not _IGNORED.intersection(path.parts):
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()[:12]


IMAGES = (
    Image("operator", "operator"),
    Image("agent", "agent_image"),
    Image("mcp-math", "mcp_images", {"SERVER": "math"}),
    Image("mcp-kubernetes", "mcp_images", {"SERVER": "kubernetes"}),
    Image("mcp-prometheus", "mcp_images", {"SERVER": "prometheus"}),
    Image("mcp-weather-forecast", "mcp_images", {"SERVER": "weather-forecast"}),
    Image("mcp-weather-historical", "mcp_images", {"SERVER": "weather-historical"}),
    Image("mcp-weather-agricultural", "mcp_images", {"SERVER": "weather-agricultural"}),
    Image("mcp-websearch", "mcp_images", {"SERVER": "websearch"}),
    Image("mcp-stdio", "mcp_images", file="stdio.Dockerfile"),
    Image("demo-model", "dev/stand_ins", {"SERVER": "demo_model"}),
    Image("search-stand-in", "dev/stand_ins", {"SERVER": "search_stand_in"}),
    Image("open-meteo-stand-in", "dev/stand_ins", {"SERVER": "open_meteo_stand_in"}),
    Image("redis", "dev/debian_image", {"PROGRAM": "redis-server"}),
    Image("prometheus", "dev/debian_image", {"PROGRAM": "prometheus"}),
)


def tag() -> str:
    """The tag that all images of this checkout share: the version, and a fingerprint of everything they are made of."""
    prints = "".join(image.fingerprint() for image in IMAGES)
    return f"{VERSION}-{hashlib.sha256(prints.encode()).hexdigest()[:12]}"


def load_local(layout: Layout) -> None:
    """Build what is missing with buildah and import it into the local cluster's containerd."""
    present = set(ctr("images", "ls", "--quiet").stdout.split())
    for image in IMAGES:
        references = _references(image, where.IMAGE_PREFIX)
        if references[0] not in present:
            archive = _archive(layout, image.name, image.fingerprint(), partial(_build_image, layout, image))
            _import(archive, image.name, references)
        else:
            ctr("images", "tag", "--force", *references)


def load_of(checkout: Path, names: Collection[str], layout: Layout) -> str:
    """Load some images as another checkout has them, under a tag of their own alone, which is returned."""
    chosen = [image for image in IMAGES if image.name in names]
    prints = "".join(image.fingerprint(checkout) for image in chosen)
    own_tag = f"{VERSION}-of-{hashlib.sha256(prints.encode()).hexdigest()[:12]}"
    present = set(ctr("images", "ls", "--quiet").stdout.split())
    for image in chosen:
        reference = f"{where.IMAGE_PREFIX}/{image.name}:{own_tag}"
        if reference not in present:
            name = f"other-{image.name}"
            build = partial(_build_image, layout, image, checkout, name)
            _import(_archive(layout, name, image.fingerprint(checkout), build), name, [reference])
    return own_tag


def load_system_images(layout: Layout) -> None:
    """The two images that the cluster itself runs: pods' pause process and CoreDNS, each one static binary."""
    catatonit = Path(shutil.which("catatonit") or "/usr/bin/catatonit")
    _load_binary(layout, PAUSE_IMAGE, catatonit, "-P")
    _load_binary(layout, COREDNS_IMAGE, layout.bin / "coredns")


def load_metrics_server(layout: Layout) -> None:
    """What measures pods, for those who have built it."""
    _load_binary(layout, METRICS_SERVER_IMAGE, layout.bin / "metrics-server")


def _load_binary(layout: Layout, reference: str, binary: Path, *arguments: str) -> None:
    """An image that holds one static binary and nothing else, unless there is one of that name."""
    if reference in ctr("images", "ls", "--quiet").stdout.split():
        return
    name = reference.rpartition("/")[2].partition(":")[0]

    def build() -> str:
        folder = layout.cache / "contexts" / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(binary, folder / binary.name)
        entrypoint = json.dumps([f"/{binary.name}", *arguments])
        (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY {binary.name} /\nENTRYPOINT {entrypoint}\n")
        tag = _built_name(name)
        _buildah(layout, "bud", "--isolation=chroot", "--tag", tag, folder)
        return tag

    fingerprint = hashlib.sha256(binary.read_bytes()).hexdigest()[:12]
    _import(_archive(layout, name, fingerprint, build), name, [reference])


def push(registry: str, context: str) -> None:
    """Build with Docker and hand the images to a cluster of the user's own: by kind, or through a registry."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        raise Failure(
            f"context {context} is not the local cluster: its images are built with Docker, and none answers.\n"
            "Start a Docker engine, or run `make demo` without CONTEXT for the local cluster."
        )
    kind = context.removeprefix("kind-") if context.startswith("kind-") else ""
    if not kind and registry == where.IMAGE_PREFIX:
        raise Failure(
            f"context {context} is no kind cluster, so its nodes have to pull the images: name a registry that\n"
            "you may push to and they may pull from: make demo CONTEXT=… REGISTRY=registry.example.com/ropewalk"
        )
    for image in IMAGES:
        references = _references(image, registry)
        with step(f"Building {image.name}", expected="a minute"):
            arguments = [f"--build-arg={name}={value}" for name, value in image.arguments.items()]
            tags = [f"--tag={reference}" for reference in references]
            folder = where.REPOSITORY / image.context
            _must([docker, "build", f"--file={folder / image.file}", *arguments, *tags, str(folder)])
        for reference in references:
            if kind:
                _must(["kind", "load", "docker-image", "--name", kind, reference])
            else:
                _must([docker, "push", reference])


def _archive(layout: Layout, name: str, fingerprint: str, build: Callable[[], str]) -> Path:
    archive = layout.images / f"{name}-{fingerprint}.tar"
    if archive.exists():
        return archive
    layout.images.mkdir(parents=True, exist_ok=True)
    with step(f"Building image {name}", expected="a minute"):
        tag = build()
        part = archive.with_suffix(".part")
        _buildah(layout, "push", tag, f"oci-archive:{part}:{tag}")
        for old in layout.images.glob(f"{name}-????????????.tar"):
            old.unlink()
        part.replace(archive)
    return archive


def _build_image(layout: Layout, image: Image, checkout: Path = where.REPOSITORY, name: str = "") -> str:
    _build_base(layout)
    tag = _built_name(name or image.name)
    mounts = [f"--volume={path}:{path}:ro" for path in _MACHINE_SETTINGS if Path(path).exists()]
    arguments = [f"--build-arg={name}={value}" for name, value in ({"BASE": _BASE} | dict(image.arguments)).items()]
    _buildah(
        layout, "bud", "--isolation=chroot", "--layers", *mounts, *arguments, "--tag", tag,
        f"--file={checkout / image.context / image.file}", checkout / image.context,
    )  # fmt: skip
    return tag


def _build_base(layout: Layout) -> None:
    """Debian with its Python, made by mmdebstrap, as the public Python image cannot be had everywhere."""
    if _buildah(layout, "images", "--quiet", _BASE, check=False).returncode == 0:
        return
    folder = layout.cache / "contexts" / "base"
    folder.mkdir(parents=True, exist_ok=True)
    with step("Building the base image (Debian 13 and its Python)", expected="half a minute"):
        _must(
            ["mmdebstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", "--quiet",
             "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
             "--dpkgopt=path-exclude=/usr/share/locale/*", "trixie", str(folder / "root.tar")]
        )  # fmt: skip
        (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        _buildah(layout, "bud", "--isolation=chroot", "--tag", _BASE, folder)
        (folder / "root.tar").unlink()


def _references(image: Image, registry: str) -> list[str]:
    return [f"{registry}/{image.name}:{tag()}", f"{registry}/{image.name}:{VERSION}"]


def _built_name(name: str) -> str:
    return f"localhost/ropewalk-{name}:latest"


def _import(archive: Path, name: str, references: list[str]) -> None:
    with step(f"Loading image {name}"):
        done = ctr("images", "import", "--all-platforms", archive)
        imported = _built_name(name)
        if imported not in done.stdout + done.stderr:
            raise Failure(f"containerd did not import {archive}: {done.stdout}{done.stderr}")
        for reference in references:
            ctr("images", "tag", "--force", imported, reference)
        ctr("images", "rm", imported)


def _buildah(layout: Layout, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    storage = ["--root", str(layout.cache / "buildah"), "--runroot", str(where.RUNTIME_DIR / "buildah")]
    command = ["buildah", *storage, *[str(each) for each in arguments]]
    return _must(command) if check else subprocess.run(command, capture_output=True, text=True, check=False)


def _must(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(command[:6])} … failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done
