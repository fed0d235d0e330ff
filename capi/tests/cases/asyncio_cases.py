"""What cgroup_reaper_asyncio promises beyond the ABI. Arguments: the path of a cgroup with a process in it, and of four empty
ones."""

import asyncio
import ctypes
import errno
import gc
import os
import sys
import threading
import weakref

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
import cgroup_reaper_asyncio  # noqa: E402
from cgroup_reaper_asyncio import Named, ReapError, Reactor, reap  # noqa: E402

library = cgroup_reaper_asyncio._lib
busy, one, two, three, four = sys.argv[1:]


async def fails(awaitable, error):
    try:
        await awaitable
    except error as raised:
        return raised
    raise AssertionError(f"no {error}")


async def refusals():
    refused = await fails(reap("/tmp"), ReapError)
    assert (refused.kind, refused.path, str(refused)) == ("refused", "/tmp", "/tmp: refused: not a cgroup")
    await fails(reap("a\0b"), ValueError)
    await fails(reap(one, deadline=-1), ValueError)
    await fails(reap(one, method="axe"), KeyError)
    await fails(reap(one, what=1), TypeError)
    bad = await fails(reap(one, grace=(0, 1)), OSError)
    assert bad.errno == errno.EINVAL
    closed = await fails(reap(10**6), OSError)
    assert closed.errno == errno.EBADF
    assert os.path.isdir(one)


async def targets():
    reaped = await reap(os.fsencode(one), keep_dir=True)
    assert (reaped.path, reaped.outcome, reaped.attempts) == (one, "emptied", 0), reaped
    fd = os.open(one, os.O_PATH)
    reaped = await reap(fd)
    os.close(fd)
    assert (reaped.outcome, os.path.exists(one)) == ("removed", False)
    top, name = os.path.split(two)
    root, below = os.path.split(top)
    assert (await reap(Named(name, slice=below, root=root))).path == two
    top, name = os.path.split(three)
    parent, below = os.path.split(top)
    root, subsystem = os.path.split(parent)
    assert (await reap(Named(name, slice=below, root=root, subsystems=[subsystem]))).path == three
    assert (await fails(reap(Named(name, subsystems=[])), ReapError)).kind == "refused"
    assert (await reap(three)).outcome == "already gone"


async def ends():
    late = await fails(reap(busy, when_empty=True, deadline=0.001), ReapError)
    assert late.kind == "timed-out" and len(late.survivors) == 1 and late.survivors[0].state, late.survivors
    task = asyncio.ensure_future(reap(busy, when_empty=True))
    await asyncio.sleep(0.01)
    task.cancel()
    await fails(task, asyncio.CancelledError)

    reactor = Reactor()
    task = asyncio.ensure_future(reactor.reap(busy, when_empty=True))
    # A thread that waits while the loop goes on.
    loop = asyncio.get_running_loop()
    assert (await loop.run_in_executor(None, lambda: reactor.submit(four).result(30))).outcome == "removed"
    assert reactor.close() == 0 and reactor.close() == 0
    assert (await fails(task, ReapError)).kind == "cancelled"
    killed = await reap(busy, deadline=float("inf"), release_memory=True)
    assert killed.outcome == "removed" and killed.attempts >= 1


async def left_at_the_close():
    """Each reap that a close leaves ends as "disconnected"."""
    reactor = Reactor()
    tasks = [asyncio.ensure_future(reactor.reap(busy, when_empty=True)) for _ in range(400)]
    top, name = os.path.split(busy)
    tasks.append(asyncio.ensure_future(reactor.reap(Named(name, root=top), when_empty=True)))
    await asyncio.sleep(0)
    left = reactor.close(0)
    assert not (await asyncio.wait(tasks, timeout=30))[1]
    errors = [task.exception() for task in tasks]
    assert {error.kind for error in errors} <= {"cancelled", "disconnected"}
    assert {error.path for error in errors} == {busy}
    assert [error.kind for error in errors].count("disconnected") == left

    # A thread hands reaps over after the last report.
    class Late(Reactor):
        def _report(self):
            super()._report()
            fd = os.open(busy, os.O_PATH)
            submitted = [self.submit(target, when_empty=True) for target in (busy, fd)]
            late.extend(asyncio.wrap_future(future) for future in submitted)
            os.close(fd)

    late = []
    Late().close()
    assert len(late) == 2 and not (await asyncio.wait(late, timeout=30))[1]
    kinds = {future.exception().kind for future in late}
    assert kinds == {"disconnected"} and busy in str(late[0].exception()), kinds


async def refused_when_closed():
    """A reap that is handed over while the reactor is being freed, or after that, is told so."""
    reactor, errors = Reactor(), []

    def submit():
        try:
            reactor.submit(busy)
        except Exception as error:
            errors.append(error)

    free = library.cgr_remote_free

    def free_slowly(remote):
        free(remote)
        thread = threading.Thread(target=submit)
        thread.start()
        thread.join()

    library.cgr_remote_free = free_slowly
    try:
        reactor.close()
    finally:
        library.cgr_remote_free = free
    submit()
    errors.append(await fails(reactor.reap(busy), ReapError))
    assert [error.kind for error in errors] == ["disconnected"] * 3, errors
    assert all(busy in str(error) for error in errors), errors


async def closed_by_a_callback():
    """Reaps that have ended keep their results."""
    reactor = Reactor()
    # On a busy machine as well, one turn does all.
    library.cgr_reactor_set_turn_budget(ctypes.c_void_p(reactor._reactor), ctypes.c_uint64(2**64 - 1))
    # As many as one drain takes.
    futures = [reactor.submit(three) for _ in range(64)]
    futures[0].add_done_callback(lambda _: reactor.close())
    reactor._turn()
    assert {future.result(0).outcome for future in futures} == {"already gone"}
    assert reactor._reactor is None


async def a_turn_that_fails():
    """The reactor ends, and its reaps with it: else the loop would call it again and again."""
    reactor = Reactor()
    task = asyncio.ensure_future(reactor.reap(busy, when_empty=True))
    await asyncio.sleep(0)
    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    turn, library.cgr_reactor_turn = library.cgr_reactor_turn, lambda *_: -errno.EIO
    try:
        # Makes the descriptor readable.
        submitted = reactor.submit(three)
        failed = await asyncio.wait_for(fails(task, ReapError), 5)
    finally:
        library.cgr_reactor_turn = turn
        loop.set_exception_handler(None)
    assert failed.kind == submitted.exception(0).kind == "disconnected"
    assert [error.errno for error in errors] == [errno.EIO]
    assert reactor.close() == 0


async def a_forked_child():
    """It leaves alone what its parent reaps."""
    reactor = Reactor()
    task = asyncio.ensure_future(reactor.reap(busy, when_empty=True))
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            calls = []
            for name in ("cgr_reactor_turn", "cgr_reactor_shutdown", "cgr_reactor_free"):
                setattr(library, name, lambda *_: calls.append(1) or 0)
            reactor._turn()
            assert reactor.close() == 0
            reactor.__del__()
            try:
                reactor.submit(busy)
                calls.append(1)
            except RuntimeError:
                pass
            status = len(calls)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert reactor.close() == 0
    assert (await fails(task, ReapError)).kind == "cancelled"


def left_by_a_closed_loop():
    """The loop is freed, and its reactor with it."""

    async def leave():
        asyncio.ensure_future(reap(busy, when_empty=True))
        await asyncio.sleep(0.01)

    loop = asyncio.new_event_loop()
    # Python says of the task that it is pending.
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(leave())
    assert len(cgroup_reaper_asyncio._reactors) == 1
    loop.close()
    loop = weakref.ref(loop)
    gc.collect()
    assert loop() is None and len(cgroup_reaper_asyncio._reactors) == 0


async def left_at_the_end_of_the_loop():
    """Returns what a thread may wait for when the loop is gone."""
    reactor = Reactor()
    return reactor.submit(busy, when_empty=True)


def outside_of_a_loop():
    try:
        Reactor()
    except RuntimeError:
        return
    raise AssertionError("no loop is needed")


async def main():
    await refusals()
    await targets()
    await left_at_the_close()
    await refused_when_closed()
    await closed_by_a_callback()
    await a_turn_that_fails()
    await a_forked_child()
    await ends()


# What fails in a finalizer.
unraisable = []
sys.unraisablehook = unraisable.append

future = asyncio.run(left_at_the_end_of_the_loop())
gc.collect()
assert future.exception(30).kind == "disconnected"
left_by_a_closed_loop()
outside_of_a_loop()
asyncio.run(main())
# The reactor ends with its loop, and its descriptors with it.
gc.collect()
assert len(cgroup_reaper_asyncio._reactors) == 0
left = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
assert not any("eventpoll" in name or "timerfd" in name for name in left), left
assert threading.active_count() <= 2
assert not unraisable, unraisable
