"""Starts the bridge: `ropewalk-mcp-stdio serve -- COMMAND`."""

import sys
from pathlib import Path

from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_stdio.install import InstallError, install, own_tree
from ropewalk_mcp_stdio.options import InstallOptions, read


def main() -> None:
    """Do what the command line says."""
    options = read(sys.argv[1:])
    if isinstance(options, InstallOptions):
        try:
            install(own_tree(), Path(options.folder))
        except InstallError as problem:
            raise SystemExit(f"ropewalk-mcp-stdio: {problem}") from None
        return
    log_as_json()
    from ropewalk_mcp_stdio.serve import run

    run(options)


if __name__ == "__main__":
    main()
