"""The cluster's keys and certificates, made by openssl: one certificate for each user, and who vouches for it.

They live for a year inside the state folder and are gone with it. Nothing here is for production.
"""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster import layout

# Python 3.13 refuses an authority without the key usage extension.
_CA_EXTENSIONS = (
    "-addext", "basicConstraints=critical,CA:TRUE",
    "-addext", "keyUsage=critical,digitalSignature,keyCertSign,keyEncipherment",
)  # fmt: skip


@dataclass(frozen=True)
class User:
    """Somebody who talks to the API server, or the server itself, as its certificate names it."""

    name: str
    subject: str
    alternative_names: str
    authority: str = "ca"
    """Who has signed it."""


USERS = (
    User(
        "apiserver",
        "/CN=kube-apiserver",
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,"
        f"IP:127.0.0.1,IP:{layout.API_SERVICE_ADDRESS},IP:{layout.NODE_ADDRESS}",
    ),
    User("admin", "/O=system:masters/CN=admin", "DNS:admin"),
    User("controller-manager", "/CN=system:kube-controller-manager", "DNS:controller-manager"),
    User("scheduler", "/CN=system:kube-scheduler", "DNS:scheduler"),
    User("proxy", "/CN=system:kube-proxy", "DNS:proxy"),
    User(
        "kubelet",
        f"/O=system:nodes/CN=system:node:{layout.NODE_NAME}",
        f"DNS:{layout.NODE_NAME},IP:{layout.NODE_ADDRESS},IP:127.0.0.1",
    ),
    # The API server before servers of further APIs. They believe whom it names, so nobody else may have its authority.
    User("front-proxy", "/CN=front-proxy", "DNS:front-proxy", "front-proxy-ca"),
)


def make(folder: Path) -> None:
    """Make what is missing of the authorities, the service account key and every user's certificate."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for authority in sorted({user.authority for user in USERS}):
        if not (folder / f"{authority}.crt").exists():
            _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{authority}.key",
                     "-out", f"{authority}.crt", "-subj", f"/CN=ropewalk-local-{authority}", "-days", "365",
                     *_CA_EXTENSIONS, folder=folder)  # fmt: skip
    if not (folder / "sa.pub").exists():
        _openssl("genrsa", "-out", "sa.key", "2048", folder=folder)
        _openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub", folder=folder)
    for user in USERS:
        if not (folder / f"{user.name}.crt").exists():
            _certificate(folder, user)


def kubeconfig(folder: Path, user: str, server: str) -> str:
    """A kubeconfig that carries its certificates within, so that it can be copied anywhere."""

    def data(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    context, certificate, key = layout.CONTEXT_NAME, data(f"{user}.crt"), data(f"{user}.key")
    return f"""apiVersion: v1
kind: Config
current-context: {context}
clusters: [{{name: {context}, cluster: {{server: "{server}", certificate-authority-data: {data("ca.crt")}}}}}]
contexts: [{{name: {context}, context: {{cluster: {context}, user: {user}}}}}]
users: [{{name: {user}, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]
"""


def _certificate(folder: Path, user: User) -> None:
    extensions = folder / f"{user.name}.ext"
    extensions.write_text(f"subjectAltName={user.alternative_names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{user.name}.key", "-out", f"{user.name}.csr",
             "-subj", user.subject, folder=folder)  # fmt: skip
    _openssl("x509", "-req", "-in", f"{user.name}.csr", "-CA", f"{user.authority}.crt",
             "-CAkey", f"{user.authority}.key", "-CAcreateserial", "-days", "365", "-out", f"{user.name}.crt",
             "-extfile", extensions.name, folder=folder)  # fmt: skip


def _openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
