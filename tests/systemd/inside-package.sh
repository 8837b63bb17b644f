#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Inside a minimal Debian that has booted with the package installed: what package.sh is about.
set -u
number=${FIRST_NUMBER:-110} failed=0

check() { # TEXT COMMAND...
	local text=$1
	shift
	number=$((number + 1))
	if "$@"; then
		echo "ok $number - package: $text"
	else
		echo "not ok $number - package: $text ($*)"
		failed=1
	fi
}
none() { # none of these files is there
	local file
	for file in "$@"; do
		# Of a link that leads nowhere -e knows nothing.
		if [ -e "$file" ] || [ -L "$file" ]; then
			echo "$file is there"
			return 1
		fi
	done
}
speaks() { # a handshake on the port
	local line
	exec 3<>/dev/tcp/127.0.0.1/8080 || return
	printf 'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s\r\n%s\r\n\r\n' \
		'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' 'Sec-WebSocket-Version: 13' >&3
	read -r -t 10 line <&3
	exec 3>&-
	[ "$line" = $'HTTP/1.1 101 Switching Protocols\r' ]
}
waits() { # COMMAND: true within 10 s
	for _ in $(seq 100); do
		"$@" && return
		sleep 0.1
	done
	return 1
}
pid() { systemctl show --value -p MainPID wsbind; }
conffile() { grep -q '^welcome = mine' /etc/wsbind.conf; }

check 'the service is enabled' systemctl is-enabled wsbind
check 'it has started with the machine' systemctl is-active wsbind
check 'the socket unit has not' test "$(systemctl is-enabled wsbind.socket)" = disabled
check 'clients can connect' speaks
check 'wsbind status' wsbind status
check 'wsbind check-config' wsbind check-config
check 'the catalog is there' sh -c 'journalctl -q -x -u wsbind | grep -q "Subject: wsbind: the daemon is ready"'
check 'man pages, completion, examples are there' ls /usr/share/man/man5/wsbind.conf.5.gz \
	/usr/share/bash-completion/completions/wsbind /usr/share/doc/wsbind/copyright

echo 'welcome = mine' >>/etc/wsbind.conf
first=$(pid)
wsbind client -c 2 --interval-ms 100 >/tmp/client 2>&1 &
client=$!
check 'two clients talk' waits sh -c 'wsbind status | grep -q "^connections  2 open"'
check 'upgrade' dpkg --force-confold -i /deb/later.deb
check 'the clients are still there' waits sh -c \
	'wsbind status | grep -q "^connections  2 open, [0-9]* since" && journalctl -q -u wsbind | grep -q "took over 2 connections"'
check 'they noticed nothing' sh -c '! grep -iE "attempt|closed|lost" /tmp/client'
kill $client
check 'the later version runs' test "$(dpkg-query -Wf '${Version}' wsbind) $(systemctl is-active wsbind)" = '99.0-1 active'
check 'it is another process' test "$(pid)" != "$first"
check 'the changed configuration was kept' conffile
check 'clients can connect again' speaks

check 'remove' dpkg -r wsbind
check 'nothing runs' test "$(systemctl is-active wsbind)" = inactive
check 'the configuration stays' conffile
check 'install again' dpkg --force-confold -i /deb/later.deb
check 'with the configuration as it was' conffile
mkdir -p /var/lib/private/wsbind/transfers
check 'purge' dpkg -P wsbind
check 'nothing is left' none /etc/wsbind* /var/lib/wsbind /var/lib/private/wsbind /run/wsbind /run/private/wsbind \
	/usr/bin/wsbind /usr/lib/systemd/catalog/wsbind.catalog /usr/lib/systemd/system/wsbind* \
	/etc/systemd/system/*/wsbind* /usr/share/doc/wsbind
exit $failed
