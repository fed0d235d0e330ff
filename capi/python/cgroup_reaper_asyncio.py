"""Kills everything in a Linux cgroup, waits until it is empty, and removes it, in asyncio:

    from cgroup_reaper_asyncio import reap

    reaped = await reap("/sys/fs/cgroup/batch/task-42", grace=(signal.SIGTERM, 5), deadline=60)
    print(reaped.outcome, reaped.elapsed)

Any number of reaps run at once, in the event loop's own thread. Needs libcgroup_reaper.so.0, which the environment variable
CGROUP_REAPER_LIBRARY may name by its path. There is nothing to build: this file is all of it. Python 3.8 and later.

Times are in seconds. Paths are str, bytes or os.PathLike.
"""

import asyncio
import concurrent.futures
import ctypes
import os
import threading
import weakref
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

__all__ = ["Named", "ReapError", "Reaped", "Reactor", "Survivor", "reap"]


class Named(NamedTuple):
    """The cgroups `root/SUBSYSTEM/slice/name` of cgroup v1, or the one at `root/slice/name` without subsystems."""

    name: str
    slice: str = ""
    root: str = "/sys/fs/cgroup"
    subsystems: Optional[Sequence[str]] = None


class Reaped(NamedTuple):
    """A finished reap: every process is dead."""

    path: str
    #: "removed", "emptied" or "already gone".
    outcome: str
    #: Processes that were sent a signal one by one.
    signalled: int
    #: Attempts to kill.
    attempts: int
    #: Time from the start to the end.
    elapsed: float


class Survivor(NamedTuple):
    """A process that outlived a deadline, as /proc described it."""

    pid: int
    command: str
    #: Its state letter: "D" uninterruptible, "t" traced, ...; empty if not known.
    state: str
    wait_channel: str
    frozen_by: Optional[str]
    kernel_thread: bool


class ReapError(Exception):
    """A reap that failed, or a target that was refused; the text says all."""

    def __init__(self, message, kind, errno, path, survivors):
        super().__init__(message)
        #: "timed-out", "replaced", "denied", "frozen-by-ancestor", "cancelled", "disconnected", "refused", "io", ...
        self.kind: str = kind
        #: The errno of the system call that is the cause, or 0.
        self.errno: int = errno
        self.path: str = path
        #: Processes that outlived the deadline; at most 64.
        self.survivors: List[Survivor] = survivors


class _Effort(ctypes.Structure):
    _fields_ = [
        ("elapsed_us", ctypes.c_uint64),
        ("signalled", ctypes.c_uint64),
        ("released", ctypes.c_uint64),
        ("attempts", ctypes.c_uint32),
        ("method", ctypes.c_int),
    ]


class _Survivor(ctypes.Structure):
    _fields_ = [
        ("command", ctypes.c_char_p),
        ("wait_channel", ctypes.c_char_p),
        ("frozen_by", ctypes.c_char_p),
        ("pid", ctypes.c_int32),
        ("state", ctypes.c_char),
        ("kernel_thread", ctypes.c_bool),
    ]


_OUTCOMES = {1: "removed", 2: "emptied", 3: "already gone"}
_METHODS = {"auto": 0, "cgroup-kill": 1, "freezer": 2, "pidfd": 3}


def _load():
    library = ctypes.CDLL(os.environ.get("CGROUP_REAPER_LIBRARY", "libcgroup_reaper.so.0"))
    pointer, place, size = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t
    text, number, wide = ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64
    functions = {
        "cgr_kind_name": (text, [number]),
        "cgr_reactor_new": (number, [place]),
        "cgr_reactor_free": (None, [pointer]),
        "cgr_reactor_fd": (number, [pointer]),
        "cgr_reactor_turn": (number, [pointer, wide]),
        "cgr_reactor_spawn": (number, [pointer, pointer, place, place]),
        "cgr_reactor_drain": (number, [pointer, place, size]),
        "cgr_reactor_shutdown": (number, [pointer, wide]),
        "cgr_remote_new": (number, [pointer, place]),
        "cgr_remote_free": (None, [pointer]),
        "cgr_remote_spawn": (number, [pointer, pointer, place, place]),
        "cgr_handle_cancel": (number, [pointer]),
        "cgr_handle_free": (None, [pointer]),
        "cgr_reaper_new": (number, [text, place]),
        "cgr_reaper_new_fd": (number, [number, place]),
        "cgr_reaper_new_named": (number, [text, text, ctypes.POINTER(text), size, text, place]),
        "cgr_reaper_free": (None, [pointer]),
        "cgr_reaper_min_wait": (number, [pointer, wide]),
        "cgr_reaper_max_wait": (number, [pointer, wide]),
        "cgr_reaper_freeze_timeout": (number, [pointer, wide]),
        "cgr_reaper_linger": (number, [pointer, wide]),
        "cgr_reaper_grace": (number, [pointer, number, wide]),
        "cgr_reaper_deadline": (number, [pointer, wide]),
        "cgr_reaper_method": (number, [pointer, number]),
        "cgr_reaper_when_empty": (number, [pointer]),
        "cgr_reaper_kill_without_freezer": (number, [pointer]),
        "cgr_reaper_keep_dir": (number, [pointer]),
        "cgr_reaper_release_memory": (number, [pointer]),
        "cgr_reaper_tag": (number, [pointer, wide]),
        "cgr_result_free": (None, [pointer]),
        "cgr_result_kind": (number, [pointer]),
        "cgr_result_outcome": (number, [pointer]),
        "cgr_result_errno": (number, [pointer]),
        "cgr_result_tag": (wide, [pointer]),
        "cgr_result_path": (text, [pointer]),
        "cgr_result_message": (text, [pointer]),
        "cgr_result_effort": (number, [pointer, ctypes.POINTER(_Effort), size]),
        "cgr_result_survivor_count": (number, [pointer]),
        "cgr_result_survivor": (number, [pointer, size, ctypes.POINTER(_Survivor), size]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_lib = _load()


def _check(answer):
    """What a function returns: 0 or more, or minus an errno."""
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer


def _made(function, *arguments):
    """What a function makes."""
    place = ctypes.c_void_p()
    _check(function(*arguments, ctypes.byref(place)))
    return place.value


def _us(seconds):
    if seconds < 0:
        raise ValueError("a time is not negative")
    # The largest number is for ever.
    return min(int(seconds * 1_000_000), 2**64 - 1) if seconds != float("inf") else 2**64 - 1


def _text(message):
    return message.decode("utf-8", "replace")


def _survivor(result, index):
    found = _Survivor()
    _check(_lib.cgr_result_survivor(result, index, ctypes.byref(found), ctypes.sizeof(found)))
    return Survivor(
        found.pid,
        _text(found.command),
        _text(found.state.rstrip(b"\0")),
        _text(found.wait_channel),
        None if found.frozen_by is None else os.fsdecode(found.frozen_by),
        found.kernel_thread,
    )


def _outcome(result):
    """What a result says, as (Reaped, None) or (None, ReapError). Frees it."""
    try:
        path = os.fsdecode(_lib.cgr_result_path(result))
        kind = _check(_lib.cgr_result_kind(result))
        if kind:
            survivors = [_survivor(result, i) for i in range(_check(_lib.cgr_result_survivor_count(result)))]
            word = _lib.cgr_kind_name(kind).decode()
            message = _text(_lib.cgr_result_message(result))
            return None, ReapError(message, word, _check(_lib.cgr_result_errno(result)), path, survivors)
        effort = _Effort()
        _check(_lib.cgr_result_effort(result, ctypes.byref(effort), ctypes.sizeof(effort)))
        word = _OUTCOMES.get(_lib.cgr_result_outcome(result), "other")
        return Reaped(path, word, effort.signalled, effort.attempts, effort.elapsed_us / 1e6), None
    finally:
        _lib.cgr_result_free(result)


Target = Union[str, bytes, "os.PathLike[str]", int, Named]


def _reaper(
    target: Target,
    *,
    grace: Optional[Tuple[int, float]] = None,
    deadline: Optional[float] = None,
    linger: Optional[float] = None,
    when_empty: bool = False,
    keep_dir: bool = False,
    release_memory: bool = False,
    method: str = "auto",
    kill_without_freezer: bool = False,
    min_wait: Optional[float] = None,
    max_wait: Optional[float] = None,
    freeze_timeout: Optional[float] = None,
):
    """The reaper of these options, to be freed."""
    if isinstance(target, int):
        reaper = _made(_lib.cgr_reaper_new_fd, target)
    elif isinstance(target, Named):
        names = [os.fsencode(name) for name in target.subsystems or ()]
        if any(b"\0" in name for name in names):
            raise ValueError("embedded null byte")
        subsystems = None if target.subsystems is None else (ctypes.c_char_p * max(1, len(names)))(*names)
        root, below, name = (_path(part) for part in (target.root, target.slice, target.name))
        reaper = _made(_lib.cgr_reaper_new_named, root, below, subsystems, len(names), name)
    else:
        reaper = _made(_lib.cgr_reaper_new, _path(target))
    try:
        _check(_lib.cgr_reaper_method(reaper, _METHODS[method]))
        if grace is not None:
            _check(_lib.cgr_reaper_grace(reaper, int(grace[0]), _us(grace[1])))
        for time, function in (
            (deadline, _lib.cgr_reaper_deadline),
            (linger, _lib.cgr_reaper_linger),
            (min_wait, _lib.cgr_reaper_min_wait),
            (max_wait, _lib.cgr_reaper_max_wait),
            (freeze_timeout, _lib.cgr_reaper_freeze_timeout),
        ):
            if time is not None:
                _check(function(reaper, _us(time)))
        for switch, function in (
            (when_empty, _lib.cgr_reaper_when_empty),
            (keep_dir, _lib.cgr_reaper_keep_dir),
            (release_memory, _lib.cgr_reaper_release_memory),
            (kill_without_freezer, _lib.cgr_reaper_kill_without_freezer),
        ):
            if switch:
                _check(function(reaper))
    except BaseException:
        _lib.cgr_reaper_free(reaper)
        raise
    return reaper


def _path(path):
    path = os.fsencode(path)
    if b"\0" in path:
        # C would end it there.
        raise ValueError("embedded null byte")
    return path


def _shown(target):
    """The path of a target, for an error."""
    if isinstance(target, int):
        return f"/proc/self/fd/{target}"
    if isinstance(target, Named):
        parts = (target.root, *list(target.subsystems or ())[:1], target.slice, target.name)
        return os.path.join(*map(os.fsdecode, parts))
    return os.fsdecode(target)


def _dropped(target):
    path = _shown(target)
    return ReapError(f"{path}: the reactor was dropped", "disconnected", 0, path, [])


class Reactor:
    """Reaps in one event loop. `reap` makes one for each loop; to make one is for those that close it themselves.

    The methods are for the loop's thread, but for `submit`. In a forked child they raise RuntimeError, and `close` does nothing.
    """

    def __init__(self, loop: Optional[asyncio.AbstractEventLoop] = None):
        # Before anything can fail: __del__ reads it.
        self._reactor = None
        self._remote = None
        loop = loop or asyncio.get_running_loop()
        self._lock = threading.Lock()
        # The future and the target of each reap under way, by tag.
        self._waiting = {}
        self._last_tag = 0
        # A forked child has a copy of this, which must not thaw or kill what the parent reaps.
        self._pid = os.getpid()
        # The loop's reader refers to this until the loop is closed.
        self._loop = weakref.ref(loop)
        self._reactor = _made(_lib.cgr_reactor_new)
        self._remote = _made(_lib.cgr_remote_new, self._reactor)
        self._fd = _check(_lib.cgr_reactor_fd(self._reactor))
        loop.add_reader(self._fd, self._turn)

    async def reap(self, target: Target, **options) -> Reaped:
        """Reaps a cgroup: a path, a descriptor of its directory, or `Named`. Raises ReapError.

        Options: grace=(signal, seconds), deadline, linger, min_wait, max_wait, freeze_timeout (seconds), when_empty,
        keep_dir, release_memory, kill_without_freezer (bool), method ("auto", "cgroup-kill", "freezer", "pidfd"). If the task
        is cancelled, so is the reap: what was killed stays killed, and nothing is left frozen.
        """
        future = asyncio.get_running_loop().create_future()
        handle = self._spawn(_lib.cgr_reactor_spawn, self._reactor, future, target, options)
        try:
            return await future
        except asyncio.CancelledError:
            _lib.cgr_handle_cancel(handle)
            # Now, for the loop may be about to end.
            self._turn()
            raise
        finally:
            _lib.cgr_handle_free(handle)

    def submit(self, target: Target, **options) -> "concurrent.futures.Future[Reaped]":
        """The same from any thread: checks the target on that, and returns a future, which that thread may wait for."""
        future = concurrent.futures.Future()
        # It cannot be cancelled.
        future.set_running_or_notify_cancel()
        _lib.cgr_handle_free(self._spawn(_lib.cgr_remote_spawn, self._remote, future, target, options))
        return future

    def close(self, at_most: float = 10) -> int:
        """Cancels all reaps, works until none is left or this time is over, and frees the reactor. Returns how many are
        left: those end as "disconnected", with nothing left frozen."""
        if not self._is_open():
            return 0
        left = _check(_lib.cgr_reactor_shutdown(self._reactor, _us(at_most)))
        self._report()
        self._end()
        return left

    def _is_open(self):
        return self._reactor is not None and self._pid == os.getpid()

    def _spawn(self, spawn, spawner, future, target, options):
        """Returns the handle."""
        if self._pid != os.getpid():
            raise RuntimeError("a forked child cannot use a reactor of its parent")
        reaper = _reaper(target, **options)
        tag = None
        try:
            with self._lock:
                self._last_tag = tag = self._last_tag + 1
                self._waiting[tag] = future, target
            _check(_lib.cgr_reaper_tag(reaper, tag))
            handle, refused = ctypes.c_void_p(), ctypes.c_void_p()
            answer = spawn(spawner, reaper, ctypes.byref(handle), ctypes.byref(refused))
            if refused.value is not None:
                raise _outcome(refused.value)[1]
            if answer < 0 and self._reactor is None:
                raise _dropped(target)
            _check(answer)
            return handle.value
        except BaseException:
            with self._lock:
                self._waiting.pop(tag, None)
            raise
        finally:
            _lib.cgr_reaper_free(reaper)

    def _turn(self):
        if not self._is_open():
            return
        try:
            _check(_lib.cgr_reactor_turn(self._reactor, 0))
            self._report()
        except OSError:
            # The descriptor stays readable: the loop would call this again and again.
            self._end()
            raise

    def _report(self):
        results = (ctypes.c_void_p * 64)()
        # A callback of a future that `submit` returned runs in here, and may close the reactor.
        while self._is_open():
            count = _check(_lib.cgr_reactor_drain(self._reactor, results, len(results)))
            with self._lock:
                taken = [(result, self._waiting.pop(_lib.cgr_result_tag(result), None)) for result in results[:count]]
            for result, waiting in taken:
                reaped, error = _outcome(result)
                if waiting is not None:
                    self._complete(waiting[0], reaped, error)
            if count < len(results):
                return

    def _complete(self, future, reaped, error):
        # One that an await was cancelled on is done.
        if future.done():
            return
        loop = self._loop()
        if isinstance(future, asyncio.Future) and (loop is None or loop.is_closed()):
            # No task awaits it any more, and to complete it would raise.
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(reaped)

    def _end(self):
        """Stops watching, and frees. A callback may have closed the reactor before."""
        if self._is_open():
            loop = self._loop()
            if loop is not None and not loop.is_closed():
                loop.remove_reader(self._fd)
            self._free()

    def _free(self):
        # First, so that a thread which hands a reap over just now knows why it is refused.
        remote, reactor, self._remote, self._reactor = self._remote, self._reactor, None, None
        _lib.cgr_remote_free(remote)
        _lib.cgr_reactor_free(reactor)
        # After that: until then another thread may hand a reap over.
        with self._lock:
            left, self._waiting = self._waiting, {}
        for future, target in left.values():
            self._complete(future, None, _dropped(target))

    def __del__(self):
        if self._is_open():
            self._free()


# Weak references only: a reactor refers to its loop by the futures that it has to complete.
_reactors: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Reactor]]" = weakref.WeakKeyDictionary()


async def reap(target: Target, **options) -> Reaped:
    """Reaps a cgroup in the running loop, as `Reactor.reap` does."""
    loop = asyncio.get_running_loop()
    known = _reactors.get(loop)
    reactor = known and known()
    # One whose turn has failed is not open.
    if reactor is None or not reactor._is_open():
        reactor = Reactor(loop)
        _reactors[loop] = weakref.ref(reactor)
    return await reactor.reap(target, **options)
