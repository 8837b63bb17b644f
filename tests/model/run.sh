#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Checks the models of the lock-free parts with spin: run.sh [MODEL ...]. Each model is
# searched through completely and must have no error; then once with each of its BUG_…
# built in, and must have one. Output is TAP.

set -u
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0 failed=0

tap() { # "ok"|"not ok" TEXT
	number=$((number + 1))
	[ "$1" = ok ] || failed=$((failed + 1))
	echo "$1 $number - $2"
}

search() { # MODEL [-DBUG_…]: prints what pan says; 0 when the search was complete
	local folder="$work/$1${2:-}"
	mkdir "$folder" && cp "$1.pml" "$folder" && cd "$folder" || return 1
	{ spin -a ${2:+"$2"} "$1.pml" && ${CC:-cc} -O1 -w -DSAFETY -DMEMLIM=2000 -o pan pan.c; } \
		>log 2>&1 || { cat log; return 1; }
	./pan -m1000000 >log 2>&1
	cat log
	! grep -qE 'max search depth too small|out of memory|aborting' log
}

[ $# -gt 0 ] || set -- *.pml
for model; do
	model=${model%.pml}
	if out=$(search "$model") && grep -q 'errors: 0' <<<"$out"; then
		tap ok "$model: $(awk '/states, stored/ {print $1}' <<<"$out") states"
	else
		tap 'not ok' "$model"
		sed 's/^/# /' <<<"$out" | head -20
	fi
	for bug in $(grep -oE 'BUG_[A-Z_]+' "$model.pml" | sort -u); do
		out=$(search "$model" "-D$bug")
		if grep -qE 'errors: [1-9]' <<<"$out"; then
			tap ok "$model: $bug is found"
		else
			tap 'not ok' "$model: $bug is not found"
			sed 's/^/# /' <<<"$out" | head -20
		fi
	done
done
echo "1..$number"
[ "$failed" = 0 ]
