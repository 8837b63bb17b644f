#!/bin/sh
# SPDX-License-Identifier: MIT
#
# spec-metrics.sh: the metrics that were promised have a row in the table, of the right
# kind, and every row has a name like others and a HELP.
set -eu
cd "$(dirname "$0")/../.."
table=src/model/metrics_table.h
failed=0

while read -r kind name; do
	if ! grep -q "^$kind([a-z_0-9]*, \"$name\"," "$table"; then
		echo "$table: no $kind named $name"
		failed=1
	fi
done <<'LIST'
GAUGE websocket_active_connections
COUNTER websocket_total_connections
COUNTER websocket_messages_received_total
COUNTER websocket_messages_sent_total
COUNTER websocket_binary_messages_total
COUNTER websocket_text_messages_total
COUNTER websocket_connection_errors_total
COUNTER websocket_message_errors_total
COUNTER websocket_pongs_missed_total
HISTOGRAM websocket_message_latency_seconds
LIST

# Rows that take name and help from a #define above them are read with these put in.
awk '
/^#define (NAME|HELP) / { value[$2] = substr($0, length("#define NAME ") + 1); next }
/^(WORKER_)?(COUNTER|GAUGE|HISTOGRAM|SECONDS|VIEW)\(/ {
	row = $0
	sub(/, NAME,/, ", " value["NAME"] ",", row)
	sub(/, HELP\)/, ", " value["HELP"] ")", row)
	rows++
	if (row !~ /^[A-Z_]+\([a-z_0-9]+, "websocket_[a-z_]+", "[^,]*", ".+\."\)$/) {
		printf "%s:%d: no websocket_ name or no HELP that is a sentence: %s\n", FILENAME, FNR, $0
		bad = 1
	}
}
END {
	if (rows < 20) {
		print FILENAME ": only " rows + 0 " rows were understood"
		bad = 1
	}
	exit bad
}' "$table" || failed=1
exit $failed
