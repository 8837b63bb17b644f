#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What is a row in the sources is described where people read: each close code that the
# server sends of itself and each capability in wsbind-protocol(7), and none beside; no number
# in the journal's catalog or in a log line that has no row.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0

numbers() { # of the rows that the server sends of itself, or of all with "all"
	awk -v all="${1:-}" '
	/^#define WS_CODE_[A-Z_]+ [0-9]+/ { number[substr($2, 9)] = $3; next }
	match($0, /^CLOSE_CODE(_UNCOUNTED)?\(/) {
		row = substr($0, RLENGTH + 1)
		gsub(/[ )]/, "", row)
		split(row, column, ",")
		by = /^CLOSE_CODE_UNCOUNTED/ ? column[2] : column[3]
		if (!(column[1] in number)) print column[1] " has no number"
		used[column[1]] = 1
		if (all || (by != "NOBODY" && by != "CLIENT")) print number[column[1]]
	}
	END { for (name in number) if (!(name in used)) print name " has no row" }
	' src/model/close_codes.h src/model/close_codes_table.h | sort
}

described() { # the list below that heading
	awk '/^\.Ss Close codes/ { on = 1; next } /^\.Ss / { on = 0 } on && /^\.It / { print $2 }' \
		man/wsbind-protocol.7 | sort
}
diff <(numbers) <(described) || bad=1

mentioned() { # in texts about an end
	grep -noE '\b(1[0-9]{3}|4[0-9]{3})\b' systemd/wsbind.catalog |
		sed 's|^|systemd/wsbind.catalog:|; s/:\([0-9]*\)$/ \1/'
	grep -nE '"[^"]*[Cc]los[a-z]* [^"]*with [0-9]{4}' src/{base,conn,channel,worker,spool,handover,server}/*.c |
		sed -nE 's/^([^:]*:[0-9]*):.*with ([0-9]{4}).*/\1 \2: use WS_CODE_TEXT()/p'
}
while read -r where code hint; do
	[ -z "$hint" ] && numbers all | grep -qx "$code" && continue
	echo "$where: $code ${hint:-is no close code}"
	bad=1
done < <(mentioned)

# The last words of rows X(NAME, name, number), in the order in which CONFIG names them.
capabilities() {
	cat src/wire/zip.h src/wire/msg_caps.h |
		sed -nE 's/^\tX\([A-Z0-9]+, ([a-z0-9]+), [0-9]+\).*/\1/p' | paste -sd, | sed 's/,/, /g'
}
grep -qF "capabilities are what the server understands: $(capabilities)." man/wsbind-protocol.7 ||
	{ echo "wsbind-protocol(7) says nothing of these capabilities: $(capabilities)"; bad=1; }
exit $bad
