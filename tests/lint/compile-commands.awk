# SPDX-License-Identifier: MIT
#
# make -nB V=1 TARGET... | awk -v folder=DIR -f compile-commands.awk
#
# What clangd calls a compilation database: an entry for each command that compiles a file
# of C. The file is the last word of its command, as the Makefile's rules write it.

/ -c -o [^ ]+ [^ ]+\.c$/ {
	command = $0
	gsub(/\\/, "\\\\", command)
	gsub(/"/, "\\\"", command)
	gsub(/\t/, " ", command)
	printf "%s\n\t{\"directory\": \"%s\",\n\t \"file\": \"%s\",\n\t \"command\": \"%s\"}", n++ ? "," : "[",
		folder, $NF, command
}

END { print n ? "\n]" : "[]" }
