"""What the modules about reconciling share."""

import pytest

from operator_reconciler import World


@pytest.fixture
def world() -> World:
    return World()
