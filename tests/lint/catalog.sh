#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The journal's catalog explains every event of src/io/log_events.h and no other, under the
# same subject, and every event is logged somewhere.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0

events() { sed -nE 's/^EVENT\((\w+), "(\w+)", "([^"]+)"\).*/\2 \3/p' src/io/log_events.h; }
entries() {
	awk '/^-- / { id = $2 } /^Subject: wsbind: / { sub(/^Subject: wsbind: /, ""); print id, $0 }' \
		systemd/wsbind.catalog
}
diff <(events | sed -E 's/ (.)/ \l\1/' | sort) <(entries | sort) || bad=1
for name in $(sed -nE 's/^EVENT\((\w+),.*/\1/p' src/io/log_events.h); do
	grep -rqw "EV_$name" src --include='*.c' || { echo "$name is never logged"; bad=1; }
done
for field in $(grep -oE '@WSBIND_[A-Z_]+@' systemd/wsbind.catalog | tr -d @ | sort -u); do
	grep -rq "\"${field#WSBIND_}\"" src --include='*.c' || { echo "no event has $field"; bad=1; }
done
awk 'length > 90 { print FILENAME ":" NR ": long"; bad = 1 } END { exit bad }' \
	systemd/wsbind.catalog || bad=1
exit $bad
