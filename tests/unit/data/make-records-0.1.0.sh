#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make-records-0.1.0.sh: how records-0.1.0.bin came about. Takes wsbind as it was at 0.1.0 out of
# git, adds write-records-0.1.0.c to its unit tests, and has it write the file again, beside this
# script: the same bytes each time. Nobody has to run it, since the file never changes: it is what
# that version left to the next one.
set -eu
here=$(realpath "$(dirname "$0")")
commit=c85c57b # the last one before folders and names were cut anew
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

git -C "$(git -C "$here" rev-parse --show-toplevel)" archive $commit | tar x -C "$folder"
cp "$here/records-0.1.0.h" "$folder/tests/unit"
cp "$here/write-records-0.1.0.c" "$folder/tests/unit/test-write-records.c"
make -s -C "$folder" -j"$(nproc)" build/release/unit >/dev/null
WSBIND_RECORDS="$here/records-0.1.0.bin" "$folder/build/release/unit" write-records || true
[ -s "$here/records-0.1.0.bin" ]
ls -l "$here/records-0.1.0.bin"
