"""Installs a Python or Node package at start, and finds its program. When that fails, it says why in plain words.

The index is whatever the usual variables name: UV_DEFAULT_INDEX, UV_INDEX_URL, NPM_CONFIG_REGISTRY and the like.
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ropewalk_mcp_stdio.process import StartError, reaping_paused

_log = logging.getLogger("ropewalk.mcp.stdio")
_INSTALL_SECONDS = 600.0
_KEPT_LINES = 100
# From uv's and npm's own words to what is wrong. The first that is found counts.
_PROBLEMS = (
    ("missing", r"E404|ETARGET|No matching version|not found in the package registry|there is no version of"),
    ("program", r"No executables are provided"),
    ("python", r"Python>=|requires-python|No interpreter|EBADENGINE"),
    ("disk", r"[Pp]ermission denied|EACCES|EROFS|[Rr]ead-only file|ENOSPC|[Nn]o space"),
    ("network", r"ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|dns error|[Cc]onnect|[Tt]imed out|[Ff]ailed to fetch"),
)
_INTERPRETERS = ("python", "node")
_ADVICE = {
    "missing": "the index does not have it; check its name and version, and which index is asked",
    "program": "it has no program to run; it may be a library",
    "python": "it needs another version of Python or Node than the stdio image has; use an image of your own",
    "disk": "it could not be written; HOME and /tmp must be writable, with room for it",
    "network": "the package index cannot be reached; allow it in spec.networkPolicy.extraEgress, or name another index "
    "in spec.pod.env (UV_DEFAULT_INDEX, NPM_CONFIG_REGISTRY)",
    "other": "see what the installer says in this log",
}


class InstallError(StartError):
    """The package could not be installed; the message says why, and what to do."""


def home(variables: Mapping[str, str]) -> Path:
    """Return the folder that packages are installed in: below HOME, which is /tmp in a pod."""
    return Path(variables.get("HOME", "/tmp")) / "ropewalk-packages"  # noqa: S108  # the volume mounted there


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of installers and packages: quiet, and with everything below one writable folder."""
    folder = home(base)
    defaults = {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_CACHE_DIR": f"{folder}/uv-cache",
        "UV_TOOL_DIR": f"{folder}/uv",
        "UV_TOOL_BIN_DIR": f"{folder}/bin",
        "NPM_CONFIG_CACHE": f"{folder}/npm-cache",
        "NPM_CONFIG_PREFIX": str(folder),
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
        "NPM_CONFIG_FUND": "false",
        "NPM_CONFIG_AUDIT": "false",
    }
    return defaults | dict(base) | {"PATH": f"{folder}/bin:{base.get('PATH', os.defpath)}"}


def installer(python_package: str | None, node_package: str | None) -> list[str]:
    """Return the command that installs the package, with its programs in the folder's bin."""
    if python_package is not None:
        return ["uv", "tool", "install", python_package]
    return ["npm", "install", "--global", "--prefer-offline", "--loglevel=http", str(node_package)]


def name_of(package: str) -> str:
    """Return a package's name, without its version, its extras and its scope."""
    return re.split(r"==|\[|(?<=.)@", package)[0].rpartition("/")[2]


def program_of(package: str, programs: Sequence[str]) -> str:
    """Return the program that a package means where none is named; InstallError where that is not clear."""
    name = name_of(package)
    if name in programs or len(programs) == 1:
        return name if name in programs else programs[0]
    found = f"it has {', '.join(sorted(programs)[:20])}" if programs else "it has none"
    raise InstallError(f"package {package!r} has no program {name!r}: {found}; name one as the command")


def explained(package: str, said: str) -> str:
    """Return why installing failed, from what the installer said."""
    kind = next((kind for kind, pattern in _PROBLEMS if re.search(pattern, said)), "other")
    return f"package {package!r} cannot be installed: {_ADVICE[kind]}"


async def install(package: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Install the package, with the installer's lines in the log; InstallError says why it cannot be."""
    _log.info("installing", extra={"package": package})
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        problem = f"{command[0]!r}, which installs it, is not here; use the image ropewalk.dev/mcp-stdio"
        raise InstallError(f"package {package!r} cannot be installed: {problem}") from None
    try:
        async with asyncio.timeout(_INSTALL_SECONDS):
            while process.stdout is not None and (line := await process.stdout.readline()):
                text = _without_credentials(line.decode(errors="replace").rstrip()[:1000])
                said.append(text)
                if text:
                    _log.info(text, extra={"package": package})
            code = await process.wait()
    except (TimeoutError, ValueError):
        raise InstallError(f"package {package!r} was not installed in {_INSTALL_SECONDS:.0f} seconds") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code:
        raise InstallError(explained(package, "\n".join(said)))
    _log.info("installed", extra={"package": package})


async def installed_command(
    python_package: str | None, node_package: str | None, command: Sequence[str], variables: Mapping[str, str]
) -> list[str]:
    """Install the package and return the command that runs it; InstallError where either cannot be."""
    package = python_package or node_package or ""
    bin_folder = home(variables) / "bin"
    with reaping_paused():
        await install(package, installer(python_package, node_package), variables)
    programs = {path.name: str(path) for path in bin_folder.iterdir()} if bin_folder.is_dir() else {}
    if python_package is not None:
        interpreter = (
            Path(variables["UV_TOOL_DIR"]) / re.sub(r"[-_.]+", "-", name_of(package)).lower() / "bin" / "python"
        )
        programs |= {"python": str(interpreter)}
    own = [name for name in programs if name not in _INTERPRETERS]
    # What follows -- may begin with one of the package's programs; else all of it is for the package's own one.
    if command and command[0] in {*programs, *_INTERPRETERS}:
        return [programs.get(command[0], command[0]), *command[1:]]
    return [programs[program_of(package, own)], *command]


def _without_credentials(line: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", line)
