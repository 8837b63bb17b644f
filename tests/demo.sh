#!/bin/bash
# SPDX-License-Identifier: MIT
#
# demo.sh WSBIND: what `make run` shows. A daemon on its embedded defaults and two clients
# that send to each other, until Ctrl-C. Without a terminal, or with WSBIND_DEMO_SECONDS
# set, it ends by itself; exit status 0 when messages went both ways.
set -u
set -m # children in process groups of their own: Ctrl-C is for this script alone

wsbind=${1:-build/release/wsbind}
seconds=${WSBIND_DEMO_SECONDS:-}
[ -n "$seconds" ] || [ -t 1 ] || seconds=10
folder=$(mktemp -d)
server= alice= bob= is_over= alice_before= bob_before=

finish() { # clients first, so that they see no server go away
	local pid
	trap '' INT TERM HUP
	for pid in $alice $bob $server; do
		kill -TERM "$pid" 2>/dev/null && wait "$pid"
	done
	rm -rf "$folder"
}
trap finish EXIT
trap 'is_over=1' INT TERM HUP

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

show() { # NAME: standard input, kept in a file and shown with the name in front
	trap '' INT
	tee "$folder/$1" | sed -u "s/^/$(printf '%-6s' "$1") | /"
}

start_server() { # [OPTION ...]; waits until it is ready
	"$wsbind" server --config /dev/null --control-socket="$folder/control.sock" "$@" </dev/null > >(show server) 2>&1 &
	server=$!
	for ((i = 0; i < 100; i++)); do
		grep -qs 'ready: ws://' "$folder/server" && return 0
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	kill -TERM "$server" 2>/dev/null
	wait "$server"
	server=
	return 1
}

find_ports() { # from the line that says that the server is ready
	port=$(sed -n 's|.*ready: ws://[^ ]*:\([0-9]*\)/.*|\1|p' "$folder/server")
	metrics=$(sed -n 's|.*metrics \(http://[^ ]*\)/.*|\1|p' "$folder/server")
}

start() {
	if is_taken 8080 || is_taken 9090; then
		echo "Port 8080 or 9090 is taken: using free ones."
		start_server --port=0 --metrics-port=0
	else
		start_server && return
		echo "That did not work with the default ports: using free ones."
		start_server --port=0 --metrics-port=0
	fi
}

is_connected() { grep -qs 'connected to' "$folder/$1"; }

sent() { # NAME: messages it sent
	grep -c '^> message ' "$folder/$1" 2>/dev/null
}

got() { # NAME OTHER AFTER LAST: messages of OTHER that NAME got, of those with these numbers
	awk -v from="$2: message " -v after="$3" -v last="$4" 'index($0, from) == 1 {
		k = substr($0, length(from) + 1) + 0
		n += k > after && k <= last
	} END { print n + 0 }' "$folder/$1"
}

note_begin() { # counts begin when both are there: what was said before, the other may have missed
	is_connected alice && is_connected bob || return
	sleep 0.2
	alice_before=$(sent alice) bob_before=$(sent bob)
}

if ! [ -x "$wsbind" ]; then
	echo "$wsbind is not there: run make first" >&2
	exit 1
fi
if ! start; then
	echo "The daemon does not start." >&2
	exit 1
fi
find_ports
until="Ctrl-C ends it."
[ -z "$seconds" ] || until="It ends after $seconds s."
cat <<EOF

  wsbind listens: ws://127.0.0.1:$port/    metrics: $metrics/metrics
  Join in from another terminal:  $wsbind client --url ws://127.0.0.1:$port
  Look into it:  $wsbind status --control-socket=$folder/control.sock
  Two clients, alice and bob, send to each other. $until

EOF
[ -z "$seconds" ] || end=$((SECONDS + seconds))
for name in alice bob; do
	"$wsbind" client --config /dev/null --url "ws://127.0.0.1:$port/" --user $name \
		--interval-ms 1000 </dev/null > >(show $name) 2>&1 &
	printf -v $name %s $!
done

status=0
while [ -z "$is_over" ]; do
	for pid in $server $alice $bob; do
		kill -0 "$pid" 2>/dev/null || { status=1 is_over=1; echo "One of them has ended." >&2; }
	done
	[ -z "$seconds" ] || [ $SECONDS -lt $end ] || is_over=1
	[ -n "$alice_before" ] || note_begin
	[ -n "$is_over" ] || sleep 0.3
done

alice_last=$(sent alice) bob_last=$(sent bob)
sleep 0.3 # what is under way arrives
to_alice=0 to_bob=0
if [ -n "$alice_before" ]; then
	to_alice=$(got alice bob "$bob_before" "$bob_last")
	to_bob=$(got bob alice "$alice_before" "$alice_last")
fi
if [ -n "$seconds" ] && { [ "$to_alice" = 0 ] || [ "$to_bob" = 0 ]; }; then
	echo "No messages went through." >&2
	status=1
fi
echo
echo "alice got $to_alice of the $((bob_last - ${bob_before:-0})) messages that bob sent," \
	"bob got $to_bob of the $((alice_last - ${alice_before:-0})) that alice sent."
exit $status
