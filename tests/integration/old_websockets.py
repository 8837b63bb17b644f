# SPDX-License-Identifier: MIT
"""
python3-websockets as Debian 12 has it. Debian 13 has it, too, but as "legacy": what bears the
usual names there is another client, with other options.
"""

from websockets import ConnectionClosed
from websockets.legacy.client import connect
from websockets.legacy.server import serve

try:
    from websockets.legacy.exceptions import InvalidStatusCode
except ImportError:
    from websockets import InvalidStatusCode

__all__ = ["ConnectionClosed", "InvalidStatusCode", "connect", "serve"]
