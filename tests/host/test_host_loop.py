"""Waiting for descriptors: what only CPython can do."""

import os

from tinyknop.loop import Loop, readable


def test_readable_tells_data_from_the_end_of_its_time():
    loop = Loop()
    there, ours = os.pipe()

    async def waits():
        first = await readable(there, 0.01)
        os.write(ours, b"x")
        return first, await readable(there, 5)

    assert loop.run_until(waits()) == (False, True)
    os.close(there)
    os.close(ours)
