# SPDX-License-Identifier: MIT
"""
Everything that an integration test uses: `from harness import *`.

A test is a function test_…() in a file NN-topic.py, plain or async. It starts a Daemon of its
own, or takes one that its file shares by having a parameter `daemon`: the file's SETTINGS are
that one's. No test sleeps to wait for something: it waits for an event with a deadline. That
nothing happens is shown by a fence, something that has to come next.
"""

# pylint: disable=unused-wildcard-import,wildcard-import
import asyncio
import http.client
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import uuid
import zlib
from pathlib import Path

from client import *
from daemon import *
from proto import *
from raw import *


class Skip(Exception):
    """Raised by a test that cannot run here; the text says why."""


def seconds(n):
    """Gives a test another deadline than 60 seconds."""
    def set_deadline(function):
        function.seconds = n
        return function
    return set_deadline
