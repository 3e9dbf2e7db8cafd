"""Each alert has its runbook, and what the runbooks tell people to run fits what the chart makes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from chart_helm import CHART, REPOSITORY, only, render

PAGES = sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
GROUPS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


def commands(page: Path) -> list[str]:
    return [line.strip() for line in page.read_text().splitlines() if line.startswith("    kubectl ")]


def test_every_alert_says_how_bad_it_is_and_where_to_read_on() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        page = REPOSITORY / rule["annotations"]["runbook_url"]
        assert page.name == f"{rule['alert']}.md"
        text = page.read_text()
        assert text.startswith(f"# {rule['alert']}\n")
        for heading in ("## Meaning", "## Impact", "## Find the cause", "## Mend it"):
            assert heading in text, f"{page.name}: {heading}"


def test_every_runbook_belongs_to_an_alert() -> None:
    assert {page.stem for page in PAGES} - {"README"} == {rule["alert"] for rule in ALERTS}


def test_no_runbook_reads_the_log_of_any_one_of_several_operators() -> None:
    # kubectl would choose one of the Deployment's pods, which may be the standby.
    read = [command for page in PAGES for command in commands(page) if " logs deployment/" in command]
    assert read
    assert [each for each in read if not re.search(r"deployment/NAME-(agent|mcp) ", each)] == []


def test_a_runbook_chooses_the_pods_of_the_operator_by_labels_that_they_have() -> None:
    objects = render("--set", "operator.replicas=2")
    labels = only(objects, "Deployment", "ropewalk-operator")["spec"]["template"]["metadata"]["labels"]
    told = {found for page in PAGES for command in commands(page) for found in re.findall(r" -l (\S+)", command)}
    assert told
    for selector in told:
        wanted = dict(part.split("=") for part in selector.replace("RELEASE", "ropewalk").split(","))
        assert wanted.items() <= labels.items(), selector


def test_all_lines_are_asked_for_where_a_selector_would_give_ten() -> None:
    logs = [command for page in PAGES for command in commands(page) if re.search(r" logs .*-l ", command)]
    assert logs
    assert [command for command in logs if "--tail=" not in command] == []
