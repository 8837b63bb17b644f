# SPDX-License-Identifier: MIT
#
# awk -f layers.awk src/*.c src/*/*.[ch]
#
# Folders under src/ are floors. An include in quotes names its folder and points into the
# own folder or to a lower floor; folders on one floor don't know each other: wire and io,
# spool and conn, server, client and tools. What talks to a server as its clients do knows
# nothing of the server's own floors, and what talks to the control socket neither. What is
# called _private.h is for its own folder.
# Prints the lines that break this; exit status 1 when there are any.

BEGIN {
	n_floors = split("base|containers|model|wire io|spool conn|channel|worker|handover|" \
		"service|server client tools|main", floors, "|")
	for (i = 1; i <= n_floors; i++) {
		n_rooms = split(floors[i], rooms, " ")
		for (k = 1; k <= n_rooms; k++)
			floor[rooms[k]] = i
	}
	for (i = floor["conn"]; i <= floor["handover"]; i++) {
		n_rooms = split(floors[i], rooms, " ")
		for (k = 1; k <= n_rooms; k++)
			of_server[rooms[k]] = 1
	}
}

FNR == 1 {
	n = split(FILENAME, path, "/")
	own = path[n - 1] == "src" ? "main" : path[n - 1]
	if (!(own in floor))
		complain("its folder is no layer")
}

/^[ \t]*#[ \t]*include[ \t]*"/ {
	split($0, quoted, "\"")
	name = quoted[2]
	if (name == "message.pb-c.h" || name == "record.pb-c.h") # made from proto/, part of wire
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
	else if ((own == "client" || own == "tools") && target in of_server)
		complain(own " looks into the server")
	else if (target != own && parts[2] ~ /_private\.h$/)
		complain("private to " target)
}

function complain(what)
{
	printf "%s:%d: %s: %s\n", FILENAME, FNR, what, $0
	bad = 1
}

END { exit bad }
