#!/bin/sh
# SPDX-License-Identifier: MIT
#
# man-keys.sh WSBIND [MANPAGE [TEMPLATE]]
#
# wsbind.conf(5) has exactly the keys of the binary, with the same defaults, ranges
# and reload classes, and conf/wsbind.conf is what the binary prints as template.
set -eu

bin=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
man=${2:-$root/man/wsbind.conf.5}
conf=${3:-$root/conf/wsbind.conf}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

"$bin" check-config --template >"$tmp/template"
"$bin" check-config --config /dev/null --dump >"$tmp/dump"

# key|default|range, from the template: its comments are joined, "Allowed: …" is cut out of them.
awk '
/^#[a-z]/ {
	key = $1
	sub(/^#/, "", key)
	value = $0
	sub(/^[^=]*= ?/, "", value)
	range = comment
	sub(/.*Allowed: /, "", range)
	sub(/\. (A reload applies it|Needs a restart).*/, "", range)
	if (range ~ /^yes, no,/)
		range = "yes or no"
	sub(/.*; /, "", range)          # what a path begins with is said in the text
	sub(/ \([^)]*\)$/, "", range)   # units
	sub(/ of UTF-8$|, with fractions$/, "", range)
	print key "|" value "|" range
	comment = ""
	next
}
/^# / { comment = comment " " substr($0, 3); next }
{ comment = "" }
' "$tmp/template" | sort >"$tmp/have"

# key|reload, from the columns of the dump.
awk 'NR > 1 { key = $1; sub(/.*  /, ""); print key "|" $0 }' "$tmp/dump" | sort >"$tmp/reload"
join -t '|' "$tmp/have" "$tmp/reload" >"$tmp/binary"

# The same from the page.
awk '
/^\.Sh / { in_keys = $2 == "KEYS" }
!in_keys { next }
/^\.It Ic / { key = $3; value = range = ""; next }
$0 == "Default" { state = 1; next }
state == 1 {
	value = $0
	sub(/^\.Sy /, "", value)
	sub(/ ,$/, "", value)
	if (value == ".Em empty")
		value = ""
	state = 2
	next
}
state == 2 { range = $0; sub(/\.$/, "", range); state = 3; next }
state == 3 && /^Reload: / {
	sub(/^Reload: /, "")
	sub(/\.$/, "")
	print key "|" value "|" range "|" $0
	state = 0
}
' "$man" | sort >"$tmp/page"

if ! [ -s "$tmp/binary" ] || [ "$(wc -l <"$tmp/binary")" != "$(wc -l <"$tmp/have")" ]; then
	echo "man-keys: --template and --dump do not name the same keys" >&2
	failed=1
fi
if ! diff -U0 "$tmp/binary" "$tmp/page" >"$tmp/diff"; then
	echo "man-keys: $man differs from the binary (- binary, + page)" >&2
	sed 1,2d "$tmp/diff" | grep '^[-+]' >&2
	failed=1
fi
if ! diff -u "$conf" "$tmp/template" >&2; then
	echo "man-keys: $conf is not what 'wsbind check-config --template' prints" >&2
	failed=1
fi
exit $failed
