#!/bin/bash
# SPDX-License-Identifier: MIT
#
# completion.sh WSBIND: what bash offers after a few beginnings; zsh, where it is installed,
# reads its file without a complaint. Neither file knows a command or an option by name, but
# those that tell: --help, --version, check-config --template, clients.
set -u
wsbind=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 1
bad=0
# shellcheck source=conf/completion/wsbind.bash
. conf/completion/wsbind.bash

offers() { # WORDS... : EXPECTED...: the last of WORDS is the one to complete
	local word
	COMP_WORDS=("$wsbind") COMPREPLY=()
	while [ "$1" != : ]; do COMP_WORDS+=("$1"); shift; done
	shift
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_wsbind 2>/dev/null
	for word; do
		[[ " ${COMPREPLY[*]} " == *" $word "* ]] && continue
		echo "after ${COMP_WORDS[*]:1}: no $word among: ${COMPREPLY[*]}"
		bad=1
	done
}

offers '' : server client benchmark check-config status clients channels reload publish disconnect --help
offers se : server
[ "${#COMPREPLY[@]}" = 1 ] || { echo "se: ${COMPREPLY[*]}"; bad=1; }
# shellcheck disable=SC2046
offers server -- : $("$wsbind" check-config --template | sed -n 's/^#\([a-z0-9_]*\) =.*/--\1=/p')
offers client --s : --send-file --spool_dir= --slow_consumer=
offers benchmark --m : --mode --message-size --metrics_port=
offers benchmark --mode '' : fanout echo
offers benchmark --mode f : fanout
offers client --ca README : README.md
offers channels --sort m : members
offers clients --sort q : queued_bytes queued_messages
offers client --token-file = README : README.md
offers token --key README : README.md
offers server --slow_consumer = '' : disconnect skip
offers server --tls_key = README : README.md
offers server --slow_consumer=s : skip
offers server --config README : README.md
offers check-config README : README.md
offers_nothing() { # WORDS...
	offers "$@" :
	[ "${#COMPREPLY[@]}" = 0 ] || { echo "after $*: ${COMPREPLY[*]}"; bad=1; }
}
offers_nothing publish ''
offers_nothing client --user ''
offers_nothing status ''

# The ids of clients are asked of the daemon: this one answers as the program would.
told=$(mktemp)
cat >"$told" <<-'END'
	#!/bin/sh
	case "$1 $2" in
	"disconnect --help") echo 'usage: wsbind disconnect ID [--config FILE] [--KEY=VALUE ...]' ;;
	"clients ") echo '6f1ad2c4-39c5-4b7e-8d53-8c6c2a0f1e11 more' ;;
	esac
END
chmod +x "$told"
real=$wsbind wsbind=$told
offers disconnect 6 : 6f1ad2c4-39c5-4b7e-8d53-8c6c2a0f1e11
wsbind=$real
rm -f "$told"

for command in $("$wsbind" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'); do
	for word in "$command" $("$wsbind" "$command" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u); do
		case $word in --help | --template | check-config | clients) continue ;; esac
		grep -qE -- "(^|[^-a-z])$word([^-a-z.]|$)" <(sed 's/#.*//' conf/completion/*) &&
			{ echo "conf/completion: $word is written by hand"; bad=1; }
	done
done
if command -v zsh >/dev/null; then
	zsh -n conf/completion/_wsbind || bad=1
fi
exit $bad
