#!/bin/bash
# SPDX-License-Identifier: MIT
#
# man-options.sh WSBIND: every command of --help, and every option of each command's --help,
# stands in its man page, and its synopsis there has no option that --help does not have. The
# routes of the administrators' HTTP in wsbind(8) are the rows of service/admin_table.h.
set -u
wsbind=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 1
bad=0

synopsis() { # PAGE COMMAND: the options in its synopsis
	awk -v all="$([ "$1" = man/wsbind.8 ] || echo 1)" -v command="$2" '
		/^\.Sh / { inside = /SYNOPSIS/; mine = 0 }
		inside && /^\.Nm/ { mine = all }
		inside && /^\.Cm / { mine = $2 == command && NF == 2 }
		inside && mine' "$1" | grep -oE -- '(Fl|\|) -[a-z][a-z-]*' | sed 's/.* /-/' | sort -u
}

for command in $("$wsbind" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'); do
	page=man/wsbind.8
	[ ! -e "man/wsbind-$command.1" ] || page=man/wsbind-$command.1
	grep -qE "^\.(It )?(Cm|Ic|Nm wsbind) .*\b$command\b|^\.Cm $command\b|^\.It Cm $command\b" \
		man/wsbind.8 || { echo "man/wsbind.8: no command $command"; bad=1; }
	options=$("$wsbind" "$command" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u)
	for option in $options; do
		[ "$option" != --help ] || continue # said once, of all
		grep -qE -- "^\.(It|Op|Fl) (.* )?${option#-}( |$)" "$page" ||
			{ echo "$page: no $option, which $command --help has"; bad=1; }
	done
	for option in $(synopsis "$page" "$command"); do
		grep -qx -- "$option" <<<"$options" ||
			{ echo "$page: $option of $command, which its --help does not have"; bad=1; }
	done
done

diff <(sed -n 's/^ROUTE([a-z]*, *\([A-Z]*\), *"\([^"]*\)".*/\1 \2/p' src/service/admin_table.h | sort) \
	<(sed -n 's/^\.It Li \([A-Z]* \/[a-z]*\).*/\1/p' man/wsbind.8 | sort) |
	sed -n 's/^</man\/wsbind.8: no/p; s/^>/src\/service\/admin_table.h: no/p' | grep . && bad=1
exit $bad
