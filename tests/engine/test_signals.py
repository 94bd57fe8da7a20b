import multiprocessing
import os
import signal
import threading
import time

import pytest

from tfaug.engine.signals import Interrupted, check_signals, deferred_signals, received_signal


@pytest.mark.parametrize("signum, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_takes_effect_at_the_next_check(signum, status):
    with deferred_signals():
        check_signals()
        os.kill(os.getpid(), signum)
        assert received_signal() == signum
        with pytest.raises(Interrupted) as stop:
            check_signals()
    assert stop.value.exit_status == status


def test_blocks_share_the_flag_and_the_outermost_puts_the_handlers_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with deferred_signals():
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received_signal() == signal.SIGTERM
    assert received_signal() is None
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_thread_sees_the_flag_of_the_main_thread():
    seen = []

    def work():
        with deferred_signals():
            seen.append(received_signal())

    with deferred_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [received_signal()] == [signal.SIGTERM]


def exit_status_of(child):
    """Forks, runs `child` and returns how the process ended."""
    process = os.fork()
    if process == 0:
        try:
            child()
        finally:
            os._exit(77)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_p2_a_second_interrupt_stops_at_once():
    def interrupt_twice():
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    def terminate_twice():
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    assert exit_status_of(interrupt_twice) == 130
    assert exit_status_of(terminate_twice) == 77


def test_a_forked_worker_dies_when_its_pool_terminates_it():
    """With the parent's handler it would only set a flag, and the pool would wait for ever."""
    with deferred_signals():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        os.kill(worker.pid, signal.SIGINT)  # Ctrl-C reaches workers too, but is the parent's business
        worker.join(0.2)
        assert worker.is_alive()
        worker.terminate()
        worker.join(10)
    assert worker.exitcode == -signal.SIGTERM
