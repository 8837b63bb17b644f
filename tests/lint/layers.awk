# SPDX-License-Identifier: MIT
#
# awk -f layers.awk src/*/*.[ch]
#
# Folders under src/ are floors. An include in quotes names its folder and points into the
# own folder or to a lower floor; wire and io, on one floor, do not know each other.
# Prints the lines that break this; exit status 1 when there are any.

BEGIN {
	split("base containers model wire core service cmd", order)
	for (i in order)
		floor[order[i]] = i
	floor["io"] = floor["wire"]
}

FNR == 1 {
	n = split(FILENAME, path, "/")
	own = path[n - 1]
	if (!(own in floor))
		complain("its folder is no layer")
}

/^[ \t]*#[ \t]*include[ \t]*"/ {
	split($0, quoted, "\"")
	name = quoted[2]
	if (name == "message.pb-c.h" || name == "state.pb-c.h") # made from proto/, part of wire
		name = "wire/" name
	if (name !~ "^[a-z]+/[^/]+$") {
		complain("names no folder")
		next
	}
	split(name, parts, "/")
	target = parts[1]
	if (!(target in floor))
		complain("no such layer")
	else if (floor[target] > floor[own])
		complain(own " looks up to " target)
	else if (floor[target] == floor[own] && target != own)
		complain(own " looks sideways to " target)
}

function complain(what)
{
	printf "%s:%d: %s: %s\n", FILENAME, FNR, what, $0
	bad = 1
}

END { exit bad }
