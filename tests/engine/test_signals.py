import os
import signal
import subprocess
import sys
import threading

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


def exit_status_of(*signals):
    """How a process ends that gets these signals from itself."""
    program = """if True:
        import os, signal, sys
        from tfaug.engine.signals import deferred_signals
        with deferred_signals():
            for name in sys.argv[1:]:
                os.kill(os.getpid(), getattr(signal, name))
        os._exit(77)
    """
    return subprocess.run([sys.executable, "-c", program, *signals]).returncode


def test_p2_a_second_interrupt_stops_at_once():
    assert exit_status_of("SIGINT", "SIGINT") == 130
    assert exit_status_of("SIGTERM", "SIGTERM") == 77
