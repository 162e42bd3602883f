"""Stopping a run by SIGTERM or Ctrl-C, in one process or in several at the same step."""
import contextlib
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A signal stopped the run before its last step, and its state is saved. The message names the signal and the step."""


@contextlib.contextmanager
def stop_requests(listen=True):
    """A context in which SIGTERM and SIGINT request a stop.

    It yields `requested(step) -> None or the signal's name`, to call after every step.

    One process: the first signal is a request, the second ends the process at once. Several processes: SIGTERM reaches JAX's preemption
    service, SIGINT is forwarded to it, and `requested` returns the request at the same step in all of them; all must call it at every step.

    Args:
        listen: False: no handler is installed and `requested` returns None. So it is in threads other than the main one, where Python
            allows no signal handlers.
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

    def requested(step):
        if several:
            return "a signal to one of the processes" if multihost_utils.reached_preemption_sync_point(step) else None
        return received[0] if received else None

    handled = (signal.SIGINT,) if several else SIGNALS  # JAX has its own handler of SIGTERM where processes are joined
    before = {number: signal.signal(number, request) for number in handled}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
