"""`python -m observe`: what `make observe`, `make observe-panels` and `make observe-down` run."""

from __future__ import annotations

import argparse
import sys

from cluster.console import Failure, fail, say
from cluster.layout import Layout
from observe import panels, stack


def main() -> int:
    """Run one command; 0, or 1 with a message that says what to do."""
    parser = argparse.ArgumentParser(prog="observe", description="Prometheus and the dashboards' figures.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "up", help="start Prometheus and Alertmanager beside the local cluster, or bring them up to date"
    )
    commands.add_parser("down", help="end them")
    commands.add_parser("pods", help="tell Prometheus the cluster's pods, until it is ended")
    look = commands.add_parser("panels", help="print every panel's figures; 1 where a panel has none")
    look.add_argument(
        "--prometheus", default=f"http://{stack.PROMETHEUS}", help="its URL; default that of `make observe`"
    )
    look.add_argument("--minutes", type=int, default=15, help="how far to look back; default 15")
    look.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="choose a variable's value")
    arguments = parser.parse_args()
    here = Layout.default()
    try:
        match arguments.command:
            case "up":
                stack.up(here)
            case "down":
                stack.down(here)
            case "pods":
                stack.tell_of_pods(here)
            case "panels":
                chosen = dict(each.split("=", 1) for each in arguments.set)
                empty = panels.show(arguments.prometheus, chosen, minutes=arguments.minutes)
                say(
                    "\n".join(
                        ["\nAlerts", *(f"  {each}" for each in panels.alerts(arguments.prometheus) or ["none"]), ""]
                    )
                )
                if empty:
                    raise Failure(f"{len(empty)} panels have nothing to show: {', '.join(empty)}.")
                say("Every panel has something to show.")
    except Failure as failure:
        return fail(failure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
