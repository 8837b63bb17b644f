#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
The other figures of what fanout.py or echo.py measured, from the file that --json named: for each
row and server the median of the rounds, and beside the first server of the table.
"""

import argparse
import json
from pathlib import Path

from peers import cpu_per_million, figures_of, print_head, print_row

FIGURES = {
    "cpu": ("processor seconds for a million messages", 2, cpu_per_million),
    "rate": ("thousand messages delivered a second", 0,
             lambda r: r["messages_per_second"] / 1000),
    "p50": ("latency ms, p50", 3, lambda r: r["latency_ms"]["p50"]),
    "p99": ("latency ms, p99", 3, lambda r: r["latency_ms"]["p99"]),
    "p99.9": ("latency ms, p99.9", 3, lambda r: r["latency_ms"]["p99.9"]),
    "rss": ("KiB of memory at most for each connection, grown in the run", 2,
            lambda r: r["peak_rss_per_client"] / 1024),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="of " + ", ".join(FIGURES))
    parser.add_argument("--beside", help="the server that all are compared with")
    options = parser.parse_args()
    rows = json.loads(Path(options.file).read_text())
    names = list(rows[0]["reports"])
    for name in options.figures or FIGURES:
        if name not in FIGURES:
            parser.error(f"{name}: there are " + ", ".join(FIGURES))
        text, digits, figure = FIGURES[name]
        keys = [key for key in rows[0] if key != "reports"]
        print_head(" ".join(f"{key:>11}" for key in keys), names, text)
        for row in rows:
            print_row(" ".join(f"{row[key]:>11}" for key in keys), names,
                      figures_of(row["reports"], figure), options.beside or names[0], digits)


if __name__ == "__main__":
    main()
