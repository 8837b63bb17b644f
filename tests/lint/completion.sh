#!/bin/bash
# SPDX-License-Identifier: MIT
#
# completion.sh WSBIND: what bash offers after a few beginnings; zsh, where it is installed,
# reads its file without a complaint.
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

offers '' : server client benchmark check-config status clients reload publish disconnect --help
offers se : server
[ "${#COMPREPLY[@]}" = 1 ] || { echo "se: ${COMPREPLY[*]}"; bad=1; }
# shellcheck disable=SC2046
offers server -- : $("$wsbind" check-config --template | sed -n 's/^#\([a-z0-9_]*\) =.*/--\1=/p')
offers client --s : --send-file --spool_dir= --slow_consumer=
offers benchmark --m : --mode --message-size --metrics_port=
offers benchmark --mode '' : fanout echo
offers server --slow_consumer = '' : disconnect skip
offers server --slow_consumer=s : skip
offers server --config README : README.md
offers check-config README : README.md
if command -v zsh >/dev/null; then
	zsh -n conf/completion/_wsbind || bad=1
fi
exit $bad
