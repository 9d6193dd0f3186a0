import threading
import time

from tune_cifar.tracking.background import BackgroundCalls


def test_calls_are_made_in_order_elsewhere_and_an_error_ends_none_of_the_others() -> None:
    errors: list[Exception] = []
    made: list[tuple[int, str]] = []
    calls = BackgroundCalls("tests", errors.append)
    for number in range(50):
        calls.submit(lambda number=number: made.append((number, threading.current_thread().name)))
    calls.submit(lambda: made[1000])
    calls.submit(lambda: made.append((50, threading.current_thread().name)))
    assert calls.wait(10)
    assert made == [(number, "tests") for number in range(51)]
    assert [type(error) for error in errors] == [IndexError]


def test_a_call_that_hangs_holds_only_those_who_wait_for_it() -> None:
    calls = BackgroundCalls("tests", print)
    assert calls.wait(0)
    gate = threading.Event()
    calls.submit(gate.wait)
    started = time.monotonic()
    assert not calls.wait(0.1)
    assert time.monotonic() - started < 5
    gate.set()
    assert calls.wait(10)
