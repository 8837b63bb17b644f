#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh WSBIND: all that a machine can say about how the project reads, one line for
# each question ("ok 1 - layers"), what is wrong below it, and a count at the end.
# WSBIND is the program whose keys are compared; generated headers are looked for beside it.
set -u
cd "$(dirname "$0")/../.." || exit 1
wsbind=$(realpath "${1:-build/release/wsbind}")
lint=tests/lint
count=0 failed=0 skipped=0
export MAKEFLAGS="${MAKEFLAGS-} --no-print-directory"

question() { # NAME COMMAND...
	local name=$1 said
	shift
	count=$((count + 1))
	if said=$("$@" 2>&1); then
		echo "ok $count - $name"
	else
		echo "not ok $count - $name"
		failed=$((failed + 1))
	fi
	[ -z "$said" ] || sed 's/^/# /' <<<"$said"
}

skip() { # NAME WHY
	count=$((count + 1)) skipped=$((skipped + 1))
	echo "ok $count - $1 # SKIP $2"
}

formatted() { # tables are laid out by hand
	# shellcheck disable=SC2046
	clang-format --dry-run --Werror $(printf '%s\n' src/*.c src/*/*.[ch] tests/{unit,fuzz}/*.[ch] bench/{,servers/}*.c |
		grep -vE '_(keys|table|events)\.h$') 2>&1 | grep -E 'error:' |
		sed 's/:[0-9]*:[0-9]*: error:.*//' | sort | uniq -c |
		awk '{ print $2 ": " $1 " places differ; see make format"; bad = 1 } END { exit bad }'
}

pages() {
	local page said bad=0
	for page in man/*.[1-9]; do
		said=$(mandoc -Tlint -W warning "$page") || bad=1
		[ -z "$said" ] || echo "$said"
		grep -q '^\.Dd ' "$page" || { echo "$page: is not mdoc"; bad=1; }
	done
	return $bad
}

units() { # as they are installed, with the program under test
	local folder bad=0 o
	folder=$(mktemp -d)
	# By the path that make has for it: dependency files name their objects as they were built.
	o=$(realpath --relative-to=. "$(dirname "$wsbind")")
	make -s install O="$o" DESTDIR="$folder/tree" bindir="$(dirname "$wsbind")" \
		prefix=/usr unitdir=/units >"$folder/log" 2>&1 || { cat "$folder/log"; bad=1; }
	mv "$folder"/tree/units/* "$folder"
	# Words about other units of the machine are not ours.
	systemd-analyze verify --man=no "$folder"/wsbind{.service,.socket,@main.service} 2>&1 |
		grep -F wsbind && bad=1
	# As exposed as 1.1 of 10, the drop-in for localhost 0.9.
	systemd-analyze security --offline=true --threshold=11 --no-pager "$folder/wsbind.service" \
		>"$folder/log" || { cat "$folder/log"; bad=1; }
	mkdir "$folder/wsbind.service.d"
	cp systemd/examples/localhost-only.conf "$folder/wsbind.service.d"
	systemd-analyze security --offline=true --threshold=9 --no-pager "$folder/wsbind.service" \
		>"$folder/log" || { cat "$folder/log"; bad=1; }
	apparmor_parser -QK systemd/examples/apparmor-profile >"$folder/log" 2>&1 ||
		{ cat "$folder/log"; bad=1; }
	rm -rf "$folder"
	return $bad
}

scripts() {
	local file bad=0
	for file in .ci/run tests/*.sh tests/*/*.sh; do
		[ -e "$file" ] || continue
		[ -x "$file" ] || { echo "$file: is not executable"; bad=1; }
		bash -n "$file" || bad=1
	done
	return $bad
}

build() { # what is built stays built, and editors are told how each file is compiled
	local commands file bad=0 o
	o=$(mktemp -d)
	make -s O="$o" "$o/src/wire/msg.o" >"$o/log" || bad=1
	make -s O="$o" "$o/src/wire/msg.o" -q ||
		{ echo "a second make builds again:"; make -sn O="$o" "$o/src/wire/msg.o"; bad=1; }
	commands=$(make -s O="$o" compile-commands)
	for file in src/*.c src/*/*.c tests/{unit,fuzz}/*.c; do
		grep -qF "\"file\": \"$file\"" <<<"$commands" ||
			{ echo "compile_commands.json has no $file"; bad=1; }
	done
	rm -rf "$o"
	return $bad
}

version() { # said in Debian's changelog and nowhere else
	local bad=0 said wanted
	wanted=$(sed -n '1s/^wsbind (\([^-)]*\)-[0-9]*) .*/\1/p' systemd/debian/changelog)
	said=$("$wsbind" --version)
	[ -n "$wanted" ] || { echo 'systemd/debian/changelog does not begin with a version'; bad=1; }
	[ "$said" = "wsbind $wanted" ] || { echo "--version says $said, the changelog $wanted"; bad=1; }
	grep -rnF --include='*.[ch]' --include='*.[1-9]' --include=Makefile --include='*.md' \
		"${wanted:-nothing}" src man bench Makefile README.md .github |
		grep -vE 'src/base/version\.h|[0-9.]'"${wanted//./\\.}"'|'"${wanted//./\\.}"'[0-9.]' && bad=1
	if command -v dpkg-parsechangelog >/dev/null; then
		dpkg-parsechangelog -l systemd/debian/changelog --all >/dev/null || bad=1
	fi
	return $bad
}

comments() { # the share of each folder, but only when it is too small somewhere
	local said
	said=$($lint/reading.py comments) || { echo "$said"; return 1; }
}

question build build
question version version
question layers awk -f $lint/layers.awk src/*.c src/*/*.[ch]
question owners awk -f $lint/owners.awk src/*/*.h
question ladders $lint/ladders.sh "$(dirname "$wsbind")"
question 'includes have a reason' $lint/reading.py includes "$(dirname "$wsbind")/gen"
question 'names in comments exist' $lint/reading.py names
question 'names of static functions' $lint/reading.py statics
question 'comments say why' comments
question 'comments that are torn' $lint/reading.py torn
question sizes $lint/sizes.sh
question 'headers compile alone' $lint/headers.sh "$(dirname "$wsbind")/gen"
question 'metrics that were promised' $lint/spec-metrics.sh
question 'keys of wsbind.conf(5) and conf/wsbind.conf' $lint/man-keys.sh "$wsbind"
question scripts scripts
question 'close codes and capabilities in wsbind-protocol(7)' $lint/protocol.sh
question "the journal's catalog" $lint/catalog.sh
question completion $lint/completion.sh "$wsbind"
if command -v mandoc >/dev/null; then
	question 'man pages' pages
	question 'commands and options in man pages' $lint/man-options.sh "$wsbind"
else
	skip 'man pages' 'mandoc is not installed'
fi
if command -v systemd-analyze >/dev/null; then
	question 'systemd units' units
else
	skip 'systemd units' 'systemd-analyze is not installed'
fi
version=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')
wanted=${CLANG_FORMAT_VERSION:-$version}
if [ -z "$version" ]; then
	skip format 'clang-format is not installed'
elif [ "$version" != "$wanted" ]; then
	skip format "the code is laid out by clang-format $wanted, this is $version"
else
	question format formatted
fi

echo "1..$count"
echo "# $((count - failed - skipped)) passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
