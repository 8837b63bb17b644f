#!/bin/bash
# SPDX-License-Identifier: MIT
#
# pristine.sh SUITE: all that is promised, in a root of this release of Debian in which nothing is
# installed but make: `make run`, `make check` with the package and lintian, the fuzzers' build,
# instructions. The last commit is tried. Ends with what each has counted; nothing is left behind.
#
# Where the release is not this machine's own, a package is built here, too, and in the root that
# release's own replaces it while clients are connected (EARLIER of tests/systemd/package.sh).
#
# Needs root, mmdebstrap, the network and about 6 GB in /var/tmp.
set -u
cd "$(dirname "$0")/.." || exit 1
suite=$1
. /etc/os-release

die() { echo "${0##*/}: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "must be root"

for old in /var/tmp/wsbind-pristine.*; do # left by a SIGKILL
	[ ! -d "$old" ] || [ -d "/proc/${old##*.}" ] || rm -rf --one-file-system "$old"
done
folder=/var/tmp/wsbind-pristine.$$
root=$folder/root child=
mkdir -m 755 "$folder" || exit 1
finish() { # all that runs in the root goes with the child; the tee of a part has this shell's end
	[ -z "$child" ] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null
	rm -rf --one-file-system "$folder" 2>/dev/null ||
		{ sleep 1 && rm -rf --one-file-system "$folder"; } # the last were still writing
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

checkout() { mkdir -p "$1" && git archive HEAD | tar x -C "$1"; }

# In the background, so that signals are heard; in namespaces that end with it: nothing that it
# starts or mounts stays.
bounded() {
	setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child \
		--mount-proc "$@" &
	child=$!
	wait $child
	local status=$?
	child=
	return $status
}

# The root of its own mount namespace, not a chroot: the kernel lets nobody in a chroot make the
# user namespaces that systemd's units want.
inside() { # COMMAND: as root in the root, without anything of this environment
	# shellcheck disable=SC2016 # expanded inside
	bounded bash -ec '
		mount --bind "$1" "$1"
		cd "$1"
		mount -t proc proc proc
		mount --rbind /sys sys
		mount --rbind /dev dev
		mount -t tmpfs tmpfs run
		mount --move . /
		exec chroot . env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
			LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive ${4:+EARLIER="$4"} \
			${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
			bash -c "cd $2 && $3"' - "$root" /wsbind "$1" "$earlier" </dev/null
}

say() { printf '\n==== %s: %s\n' "$suite" "$*"; }
results=() failed=0 earlier=
try() { # NAME COMMAND PATTERN: the result is the last line with the pattern
	local log=$folder/log status
	say "$1"
	inside "$2" > >(tee "$log") 2>&1
	status=$?
	sleep 0.2 # for tee
	results+=("$(printf '%-12s %s' "$1" "$(grep -E "$3" "$log" | tail -n 1)")")
	[ $status = 0 ] || { failed=1 results[-1]+=" (status $status)"; }
}

say "a root, for $(git log -1 --format='%h, %s')"
[ -z "$(git status --porcelain)" ] || echo "What is not committed stays out."
mapfile -t sources < <(tests/systemd/sources.sh "$suite")
with=make
[[ "${sources[*]}" != *https://* ]] || with+=,ca-certificates
bounded mmdebstrap --quiet --variant=apt --include=$with "$suite" "$root" \
	"${sources[@]}" </dev/null || die "cannot make a root of $suite"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
checkout "$root/wsbind"

if [ "${VERSION_CODENAME:-}" != "$suite" ]; then
	say "the package of ${VERSION_CODENAME:-this machine}"
	checkout "$folder/other"
	bounded make -s -C "$folder/other" deb >"$folder/log" 2>&1 ||
		{ tail -n 40 "$folder/log" >&2; die "no package can be built here"; }
	cp "$folder"/other/build/deb/wsbind_*.deb "$root/earlier.deb" && earlier=/earlier.deb
fi

try 'make run' 'make run' '^alice got [1-9]'
try 'make check' 'make check' '^[0-9]+ passed'
for part in 'make deb' lintian; do
	results+=("$(printf '%-12s %s' "$part" "$(grep -E "ok [0-9]+ - package: $part" "$folder/log")")")
done
try fuzzers 'make -j$(nproc) fuzzers && echo "$(ls build/fuzz/libfuzzer-* | wc -l) built by" \
	"$(clang --version | head -n 1)"' ' built by '
try bench-guard 'make bench-guard' '^# [0-9]+ passed'

say "what came out"
printf '%s\n' "${results[@]}"
exit $failed
