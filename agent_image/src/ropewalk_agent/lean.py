"""Keeps the halves of libraries that an agent never uses out of its memory. Changes what is loaded, never what it does.

Two measures, both for the pinned versions only and both covered by tests:

- Packages that do little but re-export their submodules (`from .x import X`) do so on demand: the first use of a name
  imports the one submodule that has it. Nothing is missing, all comes later.
- Strands imports boto3 for its default model. Where another provider is configured a stand-in takes boto3's place, of
  which every attribute is a class that cannot be instantiated.

Call `install` before Strands, openai or mcp are imported. The figures are in
docs/adr/0003-the-agent-leaves-out-what-it-does-not-use.md.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from types import ModuleType
from typing import Any

RE_EXPORTING = (
    "a2a.server.apps",
    "a2a.server.apps.jsonrpc",
    "a2a.server.request_handlers",
    "mcp",
    "mcp.client",
    "openai.resources",
    "openai.types",
    "openai.types.beta",
    "openai.types.beta.threads",
    "openai.types.beta.threads.runs",
    "openai.types.responses",
    "strands",
    "strands.storage",
    "strands.telemetry",
)
BOTO = ("boto3", "botocore")


def install(*, with_boto: bool) -> None:
    """Make imports lean from now on; `with_boto` for agents whose model is Bedrock."""
    finders: list[MetaPathFinder] = [_LazyFinder(frozenset(RE_EXPORTING))]
    if not with_boto:
        finders.append(_StandInFinder(BOTO))
    sys.meta_path[:0] = finders


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let importing the package `name` fail within the block, for a library that would use it but need not.

    Where the package is loaded already, it stays: it then costs nothing more.
    """
    if name in sys.modules:
        yield
        return
    # The import system's own sign of a module that is not there.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


class _LazyFinder(MetaPathFinder):
    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, InspectLoader):
            spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(Loader):
    """Runs a package's `__init__` without its imports from itself, which wait until somebody asks for a name."""

    def __init__(self, loader: InspectLoader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        source = self._loader.get_source(name)
        if source is None:
            raise ImportError(f"{name} has no source to read its exports from", name=name)
        tree = ast.parse(source)
        exports: dict[str, tuple[str, str]] = {}
        kept: list[ast.stmt] = []
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom):
                origin = resolve_name("." * statement.level + (statement.module or ""), name)
                if f"{origin}.".startswith(f"{name}."):
                    exports.update({alias.asname or alias.name: (origin, alias.name) for alias in statement.names})
                    continue
            kept.append(statement)
        tree.body = kept
        exec(compile(tree, module.__file__ or name, "exec"), module.__dict__)  # noqa: S102 -- the package's own code
        own_getattr = module.__dict__.get("__getattr__")

        def attribute(wanted: str) -> Any:
            if wanted in exports:
                origin, exported = exports[wanted]
                value = _exported(name, origin, exported)
            elif own_getattr is not None:
                value = own_getattr(wanted)
            elif wanted.startswith("__") or find_spec(f"{name}.{wanted}") is None:
                raise AttributeError(f"module {name!r} has no attribute {wanted!r}")
            else:
                value = import_module(f"{name}.{wanted}")
            setattr(module, wanted, value)
            return value

        module.__dict__["__getattr__"] = attribute


def _exported(package: str, origin: str, name: str) -> Any:
    """Return what `from origin import name` gives."""
    if origin != package:
        found = import_module(origin)
        if hasattr(found, name):
            return getattr(found, name)
    return import_module(f"{origin}.{name}")


class _StandInFinder(MetaPathFinder, Loader):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self._packages:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        def attribute(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)

            def refuse(*_: object, **__: object) -> None:
                raise ImportError(f"{module.__name__}.{name} is left out of agents whose model is not Bedrock")

            # An exception type, so that it may also stand in an `except`.
            stand_in = type(name, (Exception,), {"__init__": refuse})
            setattr(module, name, stand_in)
            return stand_in

        module.__dict__["__getattr__"] = attribute
