#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The Debian package: what lintian says, and its life in a minimal Debian where nothing but the
# package's own dependencies is installed: install, upgrade, remove, purge. Output is TAP.
# EARLIER is a package of an earlier build, or of another release's, to be replaced in the same way.
set -u
cd "$(dirname "$0")/../.." || exit 1
make=${MAKE:-make}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

tap() { # STATUS NUMBER TEXT
	local result=ok
	[ "$1" = 0 ] || { result='not ok'; sed 's/^/# /' "$log" | tail -n 40; }
	echo "$result $2 - package: $3"
	return "$1"
}

$make -s deb >"$log" 2>&1
tap $? 101 'make deb' || exit 1
lintian --fail-on error,warning,info build/deb/*.changes >"$log" 2>&1
tap $? 102 'lintian has nothing to say' || exit 1

# The same once more, as a later version.
deb=$(echo build/deb/wsbind_*.deb)
{ dpkg-deb -R "$deb" build/deb/later &&
	sed -i 's/^Version: .*/Version: 99.0-1/' build/deb/later/DEBIAN/control &&
	dpkg-deb --root-owner-group -b build/deb/later build/deb/later.deb; } >"$log" 2>&1
tap $? 103 'a later version' || exit 1

live() { # FIRST-NUMBER FIRST-PACKAGE: its life, in which the later version replaces it
	local status
	tests/systemd/boot-systemd --pristine --timeout 280 --bind-ro build/deb:/deb \
		--bind-ro "$2:/first.deb" --setenv FIRST_NUMBER="$1" \
		--prepare "apt-get -q update; DEBIAN_FRONTEND=noninteractive \
			apt-get -qy install --no-install-recommends /first.deb" \
		-- tests/systemd/inside-package.sh >"$log" 2>&1
	status=$?
	grep -E '^(not )?ok ' "$log"
	[ $status = 0 ] || sed 's/^/# /' "$log" | tail -n 60
	return $status
}

result=0
live 110 "$deb" || result=1
[ -z "${EARLIER:-}" ] || live 140 "$EARLIER" || result=1
exit $result
