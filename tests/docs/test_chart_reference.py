"""The table of the chart's values is that of values.yaml, and complete."""

from __future__ import annotations

import pytest

import chart_reference
from chart_reference import PAGE, VALUES, page, table

TEXT = """# Colours
# of things.
colour: ""

# Pods.
pods:
  # How many | at most.
  count: 1
  # Where <they> run.
  nodes:
    # Their `labels`.
    labels: {}
  # Kubernetes' own.
  resources:
    limits:
      memory: 1Gi
"""


def test_the_page_has_the_values_of_today() -> None:
    assert page(PAGE.read_text(), VALUES.read_text()) == PAGE.read_text(), "run `make fix`"


def test_each_value_has_its_comment_and_its_default() -> None:
    assert table(TEXT) == (
        "| value | default | meaning |\n|---|---|---|\n"
        '| `colour` | `""` | Colours of things. |\n'
        "\n### pods\n\nPods.\n\n"
        "| value | default | meaning |\n|---|---|---|\n"
        "| `pods.count` | `1` | How many \\| at most. |\n"
        "| `pods.nodes` |  | Where \\<they> run. |\n"
        "| `pods.nodes.labels` | `{}` | Their `labels`. |\n"
        '| `pods.resources` | `{"limits": {"memory": "1Gi"}}` | Kubernetes\' own. |\n'
    )


def test_what_is_outside_the_marks_is_left_alone() -> None:
    before = f"above\n{chart_reference.BEGIN}old\n{chart_reference.END}below\n"
    after = page(before, TEXT)
    assert after.startswith("above\n")
    assert after.endswith("below\n")
    assert "old" not in after


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has not one line"):
        page("no marks", TEXT)
