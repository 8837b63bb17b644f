#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What `make check` runs: check.sh MAKE. Builds and runs all tests, plain and under
# sanitizers, and ends with one line that adds up what the parts have counted. Each
# part prints TAP-like lines ("ok 1 - …", "not ok …", "… # SKIP …"); a part that
# fails without a "not ok" line counts as one failure.

set -u
cd "$(dirname "$0")/.." || exit 1
make=${1:-make}
passed=0 failed=0 skipped=0

part() { # NAME COMMAND...
	local name=$1 log status p f s
	shift
	log=$(mktemp)
	printf '\n== %s\n' "$name"
	"$@" 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	# cmocka writes "not ok 3 # SKIP name" for a test that was skipped.
	s=$(grep -cE '^(not )?ok .*# SKIP' "$log")
	p=$(grep -E '^ok [0-9]' "$log" | grep -cvF '# SKIP')
	f=$(grep -E '^not ok ' "$log" | grep -cvF '# SKIP')
	[ "$status" = 0 ] || [ "$f" != 0 ] || f=1
	[ "$p" != 0 ] || [ "$f" != 0 ] || [ "$s" != 0 ] || f=1 # a part that ran nothing has failed
	printf '== %s: %d passed, %d failed, %d skipped\n' "$name" "$p" "$f" "$s"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	rm -f "$log"
}

jobs=-j$(nproc)
build() { "$make" --no-print-directory "$jobs" "$@" || { echo "not ok - build $*"; exit 1; }; }

build all
build SAN=address,undefined all build/address-undefined/unit
build SAN=thread all build/thread/unit

part lint "$make" --no-print-directory lint
part models "$make" --no-print-directory check-model
part systemd "$make" --no-print-directory check-systemd
part 'unit, address and undefined' "$make" --no-print-directory SAN=address,undefined check-unit
part 'unit, thread' "$make" --no-print-directory SAN=thread check-unit
part 'fuzz seeds, address and undefined' \
	"$make" --no-print-directory SAN=address,undefined check-fuzz
part 'integration, address and undefined' \
	"$make" --no-print-directory SAN=address,undefined check-integration
part 'integration, thread' "$make" --no-print-directory SAN=thread check-integration
part 'conformance, address and undefined' \
	"$make" --no-print-directory SAN=address,undefined check-conformance

printf '\n'
line="$passed passed, $failed failed"
[ "$skipped" = 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" = 0 ]
