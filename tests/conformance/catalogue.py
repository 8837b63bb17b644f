# SPDX-License-Identifier: MIT
"""
The list of cases.

A case is a function of a connected Peer, registered under the number that the catalogue of
the Autobahn TestSuite gives to the same behaviour. A letter after the number marks a case of our
own, which stands beside the catalogue's. A case says what it wants by the Peer's expect_…()
functions; what breaks the standard ends it with Failed, and what the standard merely
advises against is noted with peer.note().
"""

import re
from typing import Callable, NamedTuple

CASES = {}


class Case(NamedTuple):
    """One behaviour that is looked at."""
    number: str
    title: str
    function: Callable
    args: tuple

    @property
    def order(self):
        """5.9 comes before 5.10, and 2.5 before 2.5a."""
        return [(int(n), letter) for n, letter in re.findall(r"(\d+)([a-z]*)", self.number)]

    def matches(self, prefix):
        return self.number == prefix or self.number.startswith(prefix.rstrip(".") + ".")


def case(number, title, *args):
    """Registers the function below as a case, called with a Peer and args."""
    def add(function):
        assert number not in CASES, number
        CASES[number] = Case(number, title, function, args)
        return function
    return add


def cases(prefix, *rows):
    """Registers the function below once for each (title, *args), numbered from 1."""
    def add(function):
        for i, (title, *args) in enumerate(rows, 1):
            case(f"{prefix}.{i}", title, *args)(function)
        return function
    return add


def choose(only, but):
    """The cases in order: those under one of only (empty: all), and none under one of but."""
    return [c for c in sorted(CASES.values(), key=lambda c: c.order)
            if (not only or any(map(c.matches, only))) and not any(map(c.matches, but))]
