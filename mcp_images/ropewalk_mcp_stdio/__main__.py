"""Starts the bridge: `ropewalk-mcp-stdio serve -- COMMAND`."""

import sys

from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_stdio.options import InstallOptions, read


def main() -> None:
    """Do what the command line says."""
    options = read(sys.argv[1:])
    if isinstance(options, InstallOptions):
        raise SystemExit("install: not yet")
    log_as_json()
    from ropewalk_mcp_stdio.serve import run

    run(options)


if __name__ == "__main__":
    main()
