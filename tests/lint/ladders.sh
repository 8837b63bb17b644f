#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ladders.sh OBJECTS: inside each folder of src the files form a ladder: who follows the
# symbols that an object needs to the object of the same folder that has them never comes
# back. OBJECTS is the folder that holds src/FOLDER/FILE.o. Prints the rungs of each circle.
set -uo pipefail
objects=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 1
bad=0

symbols() { # of each source of a folder: "FILE SYMBOL TYPE"
	local source name
	for source in src/"$1"/*.c; do
		name=$(basename "$source" .c)
		nm -P "$objects/src/$1/$name.o" | awk -v name="$name" '{ print name, $1, $2 }' ||
			return 1
	done
}

for folder in src/*/; do
	folder=$(basename "$folder")
	compgen -G "src/$folder/*.c" >/dev/null || continue
	symbols "$folder" | awk -v folder="$folder" '
	{ is_file[$1] = 1 }
	$3 == "U" { wants[$1, $2] = 1; next }
	$3 ~ /[A-Z]/ { home[$2] = $1 }

	END {
		for (pair in wants) {
			split(pair, part, SUBSEP)
			to = home[part[2]]
			if (to == "" || to == part[1])
				continue
			by[part[1], to] = by[part[1], to] " " part[2]
		}
		# Whoever needs nobody that is left stands on the ladder, rung by rung.
		do {
			taken = 0
			for (file in is_file) {
				if (!needs_one(file)) {
					delete is_file[file]
					taken = 1
				}
			}
		} while (taken)
		# Who is left needs somebody who is left: so going on must lead back.
		for (file in is_file)
			break
		if (!needs_one(file))
			exit
		while (!(file in seen)) {
			seen[file] = 1
			file = needs_one(file)
		}
		first = file
		print "src/" folder " is no ladder:"
		do {
			next_file = needs_one(file)
			print "\t" file " needs" by[file, next_file] " of " next_file
			file = next_file
		} while (file != first)
		exit 1
	}

	function needs_one(file,    other)
	{
		for (other in is_file)
			if ((file, other) in by)
				return other
		return ""
	}' || bad=1
done
exit $bad
