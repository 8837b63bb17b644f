#!/bin/sh
# SPDX-License-Identifier: MIT
#
# headers.sh GENERATED: every header under src compiles alone. GENERATED is the folder
# that holds message.pb-c.h. Tables of rows, which have no `#pragma once`, are left out.
set -eu
cd "$(dirname "$0")/../.."
gen=$1
flags=$(pkg-config --cflags libprotobuf-c libsystemd libzstd libmicrohttpd)
failed=0

for header in src/*/*.h; do
	grep -q '^#pragma once' "$header" || continue
	# shellcheck disable=SC2086 # flags are several words
	if ! printf '#include "%s"\n' "${header#src/}" |
		${CC:-gcc} -std=gnu17 -D_GNU_SOURCE -Isrc -I"$gen" $flags -Wall -Wextra -Werror \
			-fsyntax-only -x c -; then
		echo "$header does not compile alone"
		failed=1
	fi
done
exit $failed
