"""Runs an example, and counts the turns of its asyncio loop: counted.py EXAMPLE DIR..."""

import runpy
import selectors
import sys


class Counted(selectors.DefaultSelector):
    turns = 0

    def select(self, timeout=None):
        Counted.turns += 1
        return super().select(timeout)


selectors.DefaultSelector = Counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(f"turns: {Counted.turns}")
