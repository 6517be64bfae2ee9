"""What only CPython does for the daemon: looking up the name of an inside host."""

import os
import socket
import threading

import pytest

from tinyknop.errors import Rejected
from tinyknop.host.tools import MOST_LOOK_UPS, Tools
from tinyknop.loop import Loop, sleep


@pytest.fixture
def answer(monkeypatch):
    """A name server that answers once this is set."""
    there = threading.Event()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.9", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: there.wait(20) and found)
    yield there
    there.set()


def test_a_name_is_looked_up_while_others_go_on(answer):
    async def body():
        task = loop.spawn(tools.resolve("inside.example"))
        await sleep(0.01)
        answer.set()
        return await task

    loop, tools = Loop(), Tools(None)
    assert loop.run_until(body()) == "192.0.2.9"


def test_a_name_server_that_is_silent_costs_a_bounded_number_of_threads_and_descriptors(answer):
    async def one():
        try:
            return await tools.resolve("inside.example")
        except Rejected as error:
            return error.stage

    async def body():
        tasks = [loop.spawn(one()) for _ in range(MOST_LOOK_UPS + 50)]
        await sleep(0.05)
        held = len(os.listdir("/proc/self/fd")) - before, threading.active_count() - threads
        answer.set()
        return held, [await task for task in tasks], await one()

    loop, tools = Loop(), Tools(None)
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    held, answers, later = loop.run_until(body())
    assert held == (2 * MOST_LOOK_UPS, MOST_LOOK_UPS)
    assert (answers.count("192.0.2.9"), answers.count("nat")) == (MOST_LOOK_UPS, 50)
    assert later == "192.0.2.9"
