"""The operator that takes a refusal for final after a moment. Run as a module in the place of ropewalk_operator."""

from __future__ import annotations

import runpy

from operator_process import OperatorProcess
from ropewalk_operator import streams


class HastyOperator(OperatorProcess):
    """The operator run by this module."""

    module = "operator_hasty"


if __name__ == "__main__":
    streams.REFUSED_SECONDS = 0.1
    runpy.run_module("ropewalk_operator", run_name="__main__", alter_sys=True)
