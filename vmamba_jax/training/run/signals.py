"""A run that is asked to stop: by SIGTERM or Ctrl-C, on one process or agreed on by several."""
import contextlib
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A run ended before its last step because it was asked to; what it had reached is saved. The message says when and by what."""


@contextlib.contextmanager
def stop_requests(listen=True):
    """Within it, SIGTERM and SIGINT are requests; yields `asked(step) -> None or the signal's name`, to be called after every step.

    One process: the first signal is a request, the second ends the process at once. Several: SIGTERM reaches JAX's preemption service, SIGINT is
    handed on to it, and all processes are told at the same step; all must ask at every step. listen=False, or a thread other than the main one,
    where Python allows no handlers: nothing is changed and `asked` says None.
    """
    if not listen or threading.current_thread() is not threading.main_thread():
        yield lambda step: None
        return
    several, received = jax.process_count() > 1, []

    def request(number, frame):
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(signal.Signals(number).name)
        if several:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(step):
        if several:
            return "a signal to one of the processes" if multihost_utils.reached_preemption_sync_point(step) else None
        return received[0] if received else None

    mine = (signal.SIGINT,) if several else SIGNALS  # JAX has its own handler of SIGTERM where processes are joined
    before = {number: signal.signal(number, request) for number in mine}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
