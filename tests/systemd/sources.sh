#!/bin/bash
# SPDX-License-Identifier: MIT
#
# sources.sh SUITE: apt's sources of a release of Debian, from the mirror that this machine uses
# for its own, as lines that mmdebstrap takes. No lines where it has none of Debian: mmdebstrap
# knows a mirror, too.
set -u
. /etc/os-release
own=${VERSION_CODENAME:-}

list() { # "CODENAME URI COMPONENT"
	# shellcheck disable=SC2016 # names of apt's
	apt-get indextargets --format '$(CODENAME) $(REPO_URI) $(COMPONENT)' \
		'Created-By: Packages' 'Target-Of: deb' 'Origin: Debian'
}

[ -n "$(list)" ] || apt-get -qq update >&2
list | awk -v own="$own" -v suite="$1" 'own != "" && index($1, own) == 1 && $3 == "main" {
	print "deb " $2 " " suite substr($1, length(own) + 1) " main"
}' | sort -u
