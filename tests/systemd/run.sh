#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh [FILTER ...]: boots machines with systemd and tests wsbind in them as it is installed,
# by `make install` and as a Debian package. Output is TAP. BUILD is the folder with the built
# program, MAKE the make to use; a FILTER is a part of a test's name.
set -u
cd "$(dirname "$0")/../.." || exit 1
boot=tests/systemd/boot-systemd
build=${BUILD:-build/release}
make=${MAKE:-make}

if ! why=$($boot --timeout 60 -- true 2>&1); then
	echo "ok 1 - systemd # SKIP no machine can be booted here: $(tail -n 1 <<<"$why")"
	exit 0
fi
failed=0
$boot --timeout 400 \
	--prepare "$make -s install O=$build prefix=/usr sysconfdir=/etc >/dev/null" \
	--prepare 'journalctl --update-catalog' \
	-- /usr/bin/python3 tests/systemd/inside.py "$@" || failed=1
[ $# -gt 0 ] || tests/systemd/package.sh || failed=1
exit $failed
