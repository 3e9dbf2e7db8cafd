"""Who runs, who waits, who is turned away."""

from functools import partial

from ropewalk_agent.admission import Admission


def test_a_free_place_is_taken_at_once() -> None:
    admission = Admission(concurrency=1, queue_length=0)
    assert admission.take("a")
    assert not admission.take("b")


def test_a_busy_session_does_not_get_a_second_place() -> None:
    admission = Admission(concurrency=2, queue_length=1)
    assert admission.take("a")
    assert not admission.take("a")
    assert admission.take("b")


def test_the_queue_is_bounded() -> None:
    admission = Admission(concurrency=1, queue_length=1)
    admission.take("a")
    assert admission.wait(object(), "b", lambda: None)
    assert not admission.wait(object(), "c", lambda: None)


def test_waiting_turns_are_admitted_in_order_of_arrival() -> None:
    admission = Admission(concurrency=1, queue_length=9)
    admitted: list[str] = []
    admission.take("a")
    for session in ("b", "c"):
        admission.wait(session, session, partial(admitted.append, session))
    admission.leave("a")
    assert admitted == ["b"]
    admission.leave("b")
    assert admitted == ["b", "c"]


def test_a_turn_behind_its_own_session_does_not_hold_up_others() -> None:
    admission, admitted = Admission(concurrency=2, queue_length=9), []
    admission.take("a")
    admission.take("b")
    admission.wait(1, "a", lambda: admitted.append("second a"))
    admission.wait(2, "c", lambda: admitted.append("c"))
    admission.leave("b")
    assert admitted == ["c"]
    admission.leave("a")
    assert admitted == ["c", "second a"]


def test_who_gives_up_is_never_admitted() -> None:
    admission, admitted = Admission(concurrency=1, queue_length=9), []
    admission.take("a")
    admission.wait(1, "b", lambda: admitted.append("b"))
    admission.give_up(1)
    admission.leave("a")
    assert admitted == []
    assert (admission.running, admission.waiting) == (0, 0)


def test_a_session_is_busy_while_one_of_its_turns_runs_or_waits() -> None:
    admission = Admission(concurrency=1, queue_length=9)
    admission.take("a")
    admission.wait(1, "b", lambda: None)
    assert [session for session in "abc" if admission.is_busy(session)] == ["a", "b"]
    assert (admission.is_waiting(1), admission.is_waiting(2)) == (True, False)
    admission.leave("a")
    assert [session for session in "abc" if admission.is_busy(session)] == ["b"]
    assert not admission.is_waiting(1)
