#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sizes.sh [FOLDER]: no source file has more than 700 lines, no function more than 60.
# Two thirds of that is what is aimed at.
set -eu
cd "${1:-$(dirname "$0")/../../src}"

find . -name '*.[ch]' | LC_ALL=C sort | xargs awk '
function end_of_file() {
	if (lines > 700) {
		printf "%s: %d lines\n", file, lines
		bad = 1
	}
}
FNR == 1 {
	end_of_file()
	file = substr(FILENAME, 3)
	start = 0
	inside = 0
}
{ lines = FNR }
inside {
	if (/^}/) {
		if (FNR - start + 1 > 60) {
			printf "%s:%d: %d lines: %s\n", file, start, FNR - start + 1, signature
			bad = 1
		}
		inside = start = 0
	}
	next
}
/^\{/ { inside = start > 0; next }
/^[A-Za-z_].*\(/ && !/;[ \t]*$/ { start = FNR; signature = $0; next }
/^[^ \t]/ { start = 0 } # continued signatures are indented
END { end_of_file(); exit bad }
'
