from conformance_verdict import Check, Expected, cell, regressions

OK = Check("a", "SUCCESS", "")
BAD = Check("a", "FAILURE", "why")
WARNED = Check("a", "WARNING", "should")


def test_a_check_that_fails_or_warns_behind_the_bridge_only_is_a_regression() -> None:
    assert regressions([OK], [BAD]) == {"a": "why"}
    assert regressions([OK], [WARNED]) == {"a": "should"}
    assert regressions([], [BAD]) == {"a": "why"}


def test_what_fails_natively_too_is_no_regression() -> None:
    assert regressions([BAD], [BAD]) == {}
    assert regressions([BAD], [OK]) == {}


def test_of_checks_with_one_id_more_failures_than_natively_are_a_regression() -> None:
    assert regressions([BAD, OK], [BAD, BAD]) == {"a": "why"}
    assert regressions([BAD, BAD], [BAD, OK]) == {}


def test_a_cell_counts_what_decides_and_nothing_else() -> None:
    notes = [Check("b", "INFO", ""), Check("c", "SKIPPED", "")]
    assert cell([OK, WARNED, *notes]) == "**fails 1 of 2**"
    assert cell([OK, OK, *notes]) == "passes 2"
    assert cell(notes) == "nothing to check"


def test_a_failure_that_is_not_listed_is_a_surprise() -> None:
    expected = Expected.parse("client: [other, 'mixed:known']")
    assert expected.surprises("scenario", [BAD]) == ["scenario: a fails: why"]
    assert expected.surprises("mixed", [Check("known", "FAILURE", ""), BAD]) == ["mixed: a fails: why"]


def test_a_listed_scenario_or_check_that_passes_is_a_surprise() -> None:
    expected = Expected.parse("client: [whole, 'mixed:a']")
    assert expected.surprises("whole", [OK]) == ["whole is listed as failing and passes; take it off the list"]
    assert expected.surprises("mixed", [OK]) == ["mixed:a is listed as failing and passes; take it off"]


def test_a_listed_failure_is_none() -> None:
    expected = Expected.parse("client: [whole, 'mixed:a']")
    assert expected.surprises("whole", [BAD, Check("b", "SUCCESS", "")]) == []
    assert expected.surprises("mixed", [BAD, Check("b", "SUCCESS", "")]) == []


def test_a_listed_check_that_was_not_reached_is_no_surprise() -> None:
    assert Expected.parse("client: ['mixed:a']").surprises("mixed", [Check("b", "SUCCESS", "")]) == []


def test_an_empty_list_expects_nothing() -> None:
    assert Expected.parse("# nothing\n") == Expected()
