"""A reactor in an asyncio loop: asyncio_loop.py DIR...

Reaps the cgroups that the arguments name: the first half of them in tasks of the loop, the second half from another thread.
"""

import asyncio
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "python"))
from cgroup_reaper_asyncio import ReapError, Reactor  # noqa: E402


def from_another_thread(reactor, dirs):
    futures = [reactor.submit(path, deadline=30) for path in dirs]
    return [future.result() for future in futures]


async def main(dirs):
    half = len(dirs) // 2
    reactor = Reactor()
    thread = asyncio.get_running_loop().run_in_executor(None, from_another_thread, reactor, dirs[half:])
    reaped = await asyncio.gather(*(reactor.reap(path, deadline=30) for path in dirs[:half]))
    for index, ended in enumerate(reaped + await thread):
        print(f"{index}: {ended.path}: {ended.outcome}")
    reactor.close()


try:
    asyncio.run(main(sys.argv[1:]))
except ReapError as error:
    sys.exit(str(error))
