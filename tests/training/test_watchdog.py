"""The clock of a run's phases, and the watchdog that reads it: one process, and what process 0 says of several."""
import re
import types

import pytest

from vmamba_jax.training.run import watchdog
from vmamba_jax.training.run.clock import Clock
from vmamba_jax.training.run.watchdog import Heartbeat, Watchdog, late


class Time:
    """A clock that a test sets."""
    seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def time():
    return Time()


def run(clock, time, steps, first=1, data=0.5, step=1.5):
    """Steps of two seconds, a quarter of them spent waiting for the batch."""
    for done in range(first, first + steps):
        clock.enter("data", done)
        time.seconds += data
        clock.enter("step", done)
        time.seconds += step


def test_seconds_of_each_phase(time):
    clock = Clock(time)
    run(clock, time, 4)
    clock.enter("validation", 4)
    time.seconds += 7
    clock.enter("checkpoint", 4)
    time.seconds += 3
    assert clock.take() == {"compile_seconds": 0, "data_seconds": 2, "step_seconds": 6, "validation_seconds": 7, "checkpoint_seconds": 3}
    time.seconds += 1
    assert clock.take()["checkpoint_seconds"] == 1  # what still runs is counted once


def test_now_compares_with_the_median_of_its_kind(time):
    clock = Clock(time)
    assert clock.now() is None
    clock.enter("compile", 1)
    time.seconds += 50
    assert clock.now().usual is None
    run(clock, time, 4, first=2)
    now = clock.now()
    assert (now.phase, now.step, now.seconds, now.usual) == ("step", 5, 2, 2)  # the step's own, from the end of the one before
    clock.enter("validation", 5)
    time.seconds += 30
    assert clock.now().usual is None  # the first
    run(clock, time, 1, first=6)
    clock.enter("validation", 6)
    assert clock.now().usual == 30 and clock.now().seconds == 0
    clock.end()
    assert clock.now() is None


def test_steps_beside_a_validation_do_not_count_it(time):
    clock = Clock(time)
    for first in range(1, 9, 2):
        run(clock, time, 2, first=first)
        clock.enter("validation", first + 1)
        time.seconds += 30
    clock.enter("data", 9)
    assert clock.now().usual == 2


def test_one_process_reports_each_late_step_once(time):
    clock, said = Clock(time), []
    dog = Watchdog(clock, factor=10, least=5, report=said.append)
    run(clock, time, 5)
    clock.enter("data", 6)
    time.seconds += 19
    dog.look()
    assert not said  # 10 times two seconds is not over
    time.seconds += 2
    dog.look()
    dog.look()
    assert said == ["step 6 has not ended for 21 s, usually 2 s: this process reads its next batch"]
    run(clock, time, 1, first=7)
    dog.look()
    time.seconds += 100
    dog.look()
    assert len(said) == 2 and "step 7 has not ended for 10" in said[1] and "waits for the devices" in said[1]


def test_thread_runs_beside_the_loop_and_ends_with_it():
    clock, said = Clock(), []
    for done in range(6):
        clock.enter("data", done)
    with Watchdog(clock, factor=1, least=0.01, report=said.append, interval=0.01) as dog:
        dog._thread.join(0.5)
        assert dog._thread.is_alive() and said
    assert not dog._thread.is_alive()
    with Watchdog(clock, factor=0) as dog:
        assert dog._thread is None


BEATS = {i: Heartbeat(i, f"host{i}", 9, "step", 41, 30.0) for i in range(3)}


@pytest.mark.parametrize(("changed", "silent", "named"), [
    ({}, {}, {}),
    ({1: ("data", 40)}, {}, {1: r"process 1 \(host host1\): step 40, reads its next batch for 30 s"}),
    ({1: ("data", 40), 2: ("checkpoint", 39)}, {}, {2: "saves a checkpoint"}),
    (dict.fromkeys(range(3), ("validation", 41)), {}, {}),
    ({1: ("data", 40)}, {2: 40.0}, {2: "silent for 40 s"}),
])
def test_late_processes(changed, silent, named):
    beats = {i: beat._replace(**dict(zip(("phase", "step"), changed.get(i, (beat.phase, beat.step)), strict=True))) for i, beat in BEATS.items()}
    found = late(beats, silent, 3)
    assert found.keys() == named.keys()
    for i, why in named.items():
        assert re.search(why, found[i])
    assert late({i: beats[i] for i in (0, 2)}, {}, 3) == {1: "process 1 has sent no heartbeat yet"}


def test_process_0_names_the_late_one_of_two(time, monkeypatch):
    """Both watchdogs on a service like JAX's; process 1 is late in its data, then stops altogether."""
    service, said, me = {}, [], []
    client = types.SimpleNamespace(key_value_set=lambda key, value, allow_overwrite: service.update({key: value}),
                                   key_value_dir_get=lambda folder: [(key, value) for key, value in service.items() if key.startswith(folder)])
    monkeypatch.setattr(watchdog.jax, "process_count", lambda: 2)
    monkeypatch.setattr(watchdog.jax, "process_index", lambda: me[-1])
    monkeypatch.setattr(watchdog, "_client", lambda: client)
    clocks = [Clock(time), Clock(time)]
    dogs = [Watchdog(clock, factor=10, least=5, report=said.append, interval=1) for clock in clocks]

    def look(i):
        me.append(i)
        dogs[i].look()

    for done in range(1, 7):
        for clock in clocks:
            clock.enter("data", done)
        clocks[0].enter("step", done)
        if done < 6:
            clocks[1].enter("step", done)
            time.seconds += 2
    time.seconds += 30
    look(1)
    look(0)
    assert len(said) == 1 and "late: process 1 (host" in said[0] and "step 6, reads its next batch for 30 s" in said[0]
    for _ in range(6):  # process 1 sends nothing more
        look(0)
    assert len(said) == 2 and "silent for 4 s" in said[1]
    clocks[1].enter("step", 6)
    look(1)
    for _ in range(5):
        look(0)
    assert len(said) == 4 and "no process is behind" in said[2] and "silent for 4 s" in said[3]
