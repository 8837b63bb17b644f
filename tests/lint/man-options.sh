#!/bin/bash
# SPDX-License-Identifier: MIT
#
# man-options.sh WSBIND: every command of --help, and every option of each command's --help,
# stands in its man page.
set -u
wsbind=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 1
bad=0

for command in $("$wsbind" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'); do
	page=man/wsbind.8
	[ ! -e "man/wsbind-$command.1" ] || page=man/wsbind-$command.1
	grep -qE "^\.(It )?(Cm|Ic|Nm wsbind) .*\b$command\b|^\.Cm $command\b|^\.It Cm $command\b" \
		man/wsbind.8 || { echo "man/wsbind.8: no command $command"; bad=1; }
	for option in $("$wsbind" "$command" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u); do
		[ "$option" != --help ] || continue # said once, of all
		grep -qE -- "^\.(It|Op|Fl) (.* )?${option#-}( |$)" "$page" ||
			{ echo "$page: no $option, which $command --help has"; bad=1; }
	done
done
exit $bad
