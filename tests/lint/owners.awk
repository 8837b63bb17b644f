# SPDX-License-Identifier: MIT
#
# awk -f owners.awk src/*/*.h
#
# Every struct that a header defines says between `struct` and its name which thread may
# touch it: WB_OWNER(role), WB_FROZEN, WB_SHARED or WB_VALUE (base/base.h). Structs inside
# others belong with them. Prints those without; exit status 1 when there are any.

FNR == 1 { head = "" }

/^#/ { next }

# A definition at the margin, up to its brace; a declaration ends before it.
/^(typedef |static |const |extern )*(struct|union)([^A-Za-z0-9_]|$)/ {
	head = ""
	line = FNR
	is_open = 1
}

is_open {
	head = head " " $0
	if (head !~ /[{;]/)
		next
	is_open = 0
	brace = index(head, "{")
	semicolon = index(head, ";")
	if (!brace || (semicolon && semicolon < brace))
		next
	head = substr(head, 1, brace)
	gsub(/^ +| +$/, "", head)
	# `struct x f(...) {` and `struct x y = {` define no struct.
	if (head ~ /=/ || head ~ /[a-z0-9_]+ *\**[a-z0-9_]+\(/)
		next
	if (head !~ /(struct|union) WB_(OWNER\([a-z]+\)|FROZEN|SHARED|VALUE)([ \t]|$)/) {
		printf "%s:%d: no owner: %s\n", FILENAME, line, head
		bad = 1
	}
}

END { exit bad }
