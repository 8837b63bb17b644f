# SPDX-License-Identifier: MIT
"""The project's message.proto as Python classes, made by protoc when it is newer than they are."""

import importlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLOW = float(os.environ.get("WSBIND_TEST_SLOW", "1"))
DEADLINE = 10 * SLOW  # seconds that any one event may take


def binary():
    """The program under test."""
    return Path(os.environ.get("WSBIND", ROOT / "build/release/wsbind")).resolve()


def generate():
    """message_pb2.py in the build folder; safe when several processes do it at once."""
    source = ROOT / "proto/message.proto"
    folder = ROOT / "build/python"
    target = folder / "message_pb2.py"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            subprocess.run(["protoc", f"--proto_path={source.parent}", f"--python_out={fresh}",
                            str(source)], check=True)
            os.replace(Path(fresh) / "message_pb2.py", target)
    return folder


sys.path.insert(0, str(generate()))
pb = importlib.import_module("message_pb2")

Message = pb.WebSocketMessage
# MessageType
UNKNOWN, CHAT_MESSAGE, BINARY_DATA, CONTROL, HEARTBEAT = range(5)
# ControlType
CONNECT, DISCONNECT, ACKNOWLEDGE, ERROR, CONFIG = range(5)
SUBSCRIBE, UNSUBSCRIBE, POSITION, GAP = 16, 17, 18, 19
# CompressionType
NONE, GZIP, ZSTD, LZ4 = range(4)


def new_id():
    """A request_id."""
    return uuid.uuid4().bytes


def chat(content, user_id="", channel=None, request_id=b""):
    """A chat message; channel None leaves the field out."""
    m = Message(type=CHAT_MESSAGE, request_id=request_id)
    m.chat.id = str(uuid.uuid4())
    m.chat.user_id = user_id
    m.chat.content = content
    m.chat.timestamp = int(time.time())
    if channel is not None:
        m.channel = channel
    return m


def crc32(data):
    """The checksum as it stands in BinaryData."""
    return f"{zlib.crc32(data):08x}"


def data(payload, sequence=0, is_last=True, checksum=None, compression=NONE, channel=None,
         request_id=b""):
    """A BinaryData message with its checksum, unless one is given ("" leaves it out)."""
    m = Message(type=BINARY_DATA, request_id=request_id)
    m.binary.data = payload
    m.binary.checksum = crc32(payload) if checksum is None else checksum
    m.binary.sequence = sequence
    m.binary.is_last = is_last
    m.binary.compression = compression
    if channel is not None:
        m.channel = channel
    return m


def control(kind, session_id="", capabilities=(), channels=(), request_id=b"", token=""):
    """A ControlMessage."""
    m = Message(type=CONTROL, request_id=request_id)
    m.control.type = kind
    m.control.session_id = session_id
    m.control.capabilities.extend(capabilities)
    m.control.channels.extend(channels)
    m.control.token = token
    return m


def describe(m):
    """A message in one line, for failures."""
    if not isinstance(m, Message):
        return repr(m)[:200]
    return " ".join(str(m).split())[:300]
