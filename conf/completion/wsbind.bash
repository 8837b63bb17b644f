# SPDX-License-Identifier: MIT
# bash completion for wsbind(8). What there is to complete is asked of the program: commands,
# options, their values and operands of --help, keys and their values of check-config --template.

_wsbind_keys() { # PROGRAM: "key", "key word word" of one that takes one of a few, "key FILE" of a text
	"$1" check-config --template 2>/dev/null | awk '
		/^# / { comment = comment " " substr($0, 3); next }
		/^#[a-z]/ {
			words = comment ~ /Allowed: at most [0-9]+ bytes/ ? "FILE" : ""
			if (match(comment, /Allowed: [a-z0-9]+(, [a-z0-9]+)+\./)) {
				words = substr(comment, RSTART + 9, RLENGTH - 10)
				gsub(",", "", words)
			}
			print substr($1, 2), words
		}
		{ comment = "" }'
}

_wsbind_value() { # PROGRAM COMMAND OPTION: what its value is called, "FILE" or "fanout|echo"
	"$1" "$2" --help 2>/dev/null | grep -oE -- "(^|[^-a-z])$3 [^ ]+" | awk '
		{ sub(/\]$/, "", $NF); value = index($NF, "|") || !value ? $NF : value }
		END { print value }'
}

_wsbind_operand() { # PROGRAM COMMAND: what stands beside the options, "ID" or "[FILE]"
	"$1" "$2" --help 2>/dev/null | awk 'NR == 1 {
		for (i = 4; i <= NF; i++)
			if ($i !~ /^\[?-/)
				print $i
			else if ($i !~ /\]$/)
				i++ # its value
	}'
}

_wsbind_offer() { # PROGRAM VALUE WORD: what may stand where the help says VALUE
	case $2 in
	*FILE*) mapfile -t COMPREPLY < <(compgen -f -- "$3") ;;
	[a-z]*'|'*) mapfile -t COMPREPLY < <(compgen -W "${2//|/ }" -- "$3") ;;
	ID)
		mapfile -t COMPREPLY < <(compgen -W "$("$1" clients 2>/dev/null |
			grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')" -- "$3") ;;
	esac
}

_wsbind() {
	local program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]}
	local before=${COMP_WORDS[COMP_CWORD - 1]} key words value IFS=$' \t\n'

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
		_wsbind_offer "$program" "$(_wsbind_value "$program" "$command" "$key")" "$word"
		case $words in
		*FILE*) _wsbind_offer "$program" FILE "$word" ;;
		*[a-z0-9]*) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word") ;;
		esac
		return
	fi
	if [[ $before == --* ]]; then
		value=$(_wsbind_value "$program" "$command" "$before")
		_wsbind_offer "$program" "$value" "$word"
		[[ -z $value ]] || return
	fi
	if [[ $word == -* ]]; then
		words=$("$program" "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')
		words+=$'\n'$(_wsbind_keys "$program" | sed 's/^\([a-z0-9_]*\).*/--\1=/')
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word" | sort -u)
		[[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
	else
		_wsbind_offer "$program" "$(_wsbind_operand "$program" "$command")" "$word"
	fi
}

complete -o bashdefault -F _wsbind wsbind
