# SPDX-License-Identifier: MIT
# bash completion for wsbind(8). What there is to complete is asked of the program: commands and
# options of --help, keys and their values of check-config --template.

_wsbind_keys() { # PROGRAM: "key" or "key word word" for those that take one of a few words
	"$1" check-config --template 2>/dev/null | awk '
		/^# / { comment = comment " " substr($0, 3); next }
		/^#[a-z]/ {
			words = ""
			if (match(comment, /Allowed: [a-z0-9]+(, [a-z0-9]+)+\./)) {
				words = substr(comment, RSTART + 9, RLENGTH - 10)
				gsub(",", "", words)
			}
			print substr($1, 2), words
		}
		{ comment = "" }'
}

_wsbind() {
	local program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]}
	local before=${COMP_WORDS[COMP_CWORD - 1]} key words IFS=$' \t\n'

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		words=$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p')
		mapfile -t COMPREPLY < <(compgen -W "$words --help --version" -- "$word")
		return
	fi
	# With "=" among the characters that part words, --key=value comes in three.
	if [[ $word == = ]]; then
		key=$before word=
	elif [[ $before == = ]]; then
		key=${COMP_WORDS[COMP_CWORD - 2]}
	elif [[ $word == --*=* ]]; then
		key=${word%%=*} word=${word#*=}
	fi
	if [[ -n ${key-} ]]; then
		words=$(_wsbind_keys "$program" | awk -v key="${key#--}" '$1 == key { $1 = ""; print }')
		if [[ $key == --spool_dir || $key == --control_socket ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$word")
		else
			mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
		fi
		return
	fi
	case $before in
	--config | --send-file)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return ;;
	--mode)
		mapfile -t COMPREPLY < <(compgen -W 'fanout echo' -- "$word")
		return ;;
	esac
	if [[ $word == -* ]]; then
		words=$("$program" "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')
		words+=$'\n'$(_wsbind_keys "$program" | sed 's/^\([a-z0-9_]*\).*/--\1=/')
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word" | sort -u)
		[[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
	elif [[ $command == check-config ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
	elif [[ $command == disconnect ]]; then
		words=$("$program" clients 2>/dev/null | grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
	fi
}

complete -o bashdefault -F _wsbind wsbind
