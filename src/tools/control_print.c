/* SPDX-License-Identifier: MIT */
#include "tools/control_print.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "tools/json.h"

#define TEXT_MAX 256
#define LIST_MAX 512
#define LINE_MAX_SHOWN 8192 /* of a line of text from the daemon */

/* One row of the table of clients, escaped already. */
struct row {
	char id[64], session[TEXT_MAX], user[TEXT_MAX], address[80];
	char connected[32], heartbeat[32], capabilities[LIST_MAX], channels[LIST_MAX];
	uint64_t queued_bytes;
};

double metric_sum(const char *text, const char *name)
{
	size_t n = strlen(name);
	double sum = 0;

	for (const char *line = text; line; line = strchr(line, '\n')) {
		const char *value;

		line += *line == '\n';
		if (strncmp(line, name, n) != 0 || (line[n] != ' ' && line[n] != '{'))
			continue;
		/* A label's value may hold a space, but nothing follows the number. */
		value = line + strcspn(line, "\n");
		while (value > line && value[-1] != ' ')
			value--;
		sum += strtod(value, NULL);
	}
	return sum;
}

/* The value of a label in the first series of @name; "" when there is none. */
static void label_of(const char *text, const char *name, const char *label, char *out, size_t cap)
{
	char at[100];
	const char *p;

	out[0] = '\0';
	snprintf(at, sizeof(at), "\n%s{%s=\"", name, label);
	p = strstr(text, at);
	if (!p)
		return;
	p += strlen(at);
	text_escape(out, cap, p, strcspn(p, "\"\n"));
}

static const char *size_text(char out[32], double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t i = 0;

	while (bytes >= 1024 && i + 1 < ARRAY_LEN(units)) {
		bytes /= 1024;
		i++;
	}
	snprintf(out, 32, i == 0 ? "%.0f %s" : "%.1f %s", bytes, units[i]);
	return out;
}

/* The two largest units: "3d 4h", "5m 12s", "9s". */
static const char *age_text(char out[32], uint64_t seconds)
{
	uint64_t days = seconds / 86400, hours = seconds / 3600 % 24;
	uint64_t minutes = seconds / 60 % 60;

	if (days)
		snprintf(out, 32, "%" PRIu64 "d %" PRIu64 "h", days, hours);
	else if (hours)
		snprintf(out, 32, "%" PRIu64 "h %" PRIu64 "m", hours, minutes);
	else if (minutes)
		snprintf(out, 32, "%" PRIu64 "m %" PRIu64 "s", minutes, seconds % 60);
	else
		snprintf(out, 32, "%" PRIu64 "s", seconds);
	return out;
}

static uint64_t seconds_since(double then_seconds, uint64_t now_wall_ms)
{
	double age = (double)now_wall_ms / 1000 - then_seconds;

	return age > 0 ? (uint64_t)age : 0;
}

static void print_workers(FILE *out, const char *text, double seconds)
{
	char series[100];

	fprintf(out, "\n%8s %12s %9s %12s\n", "worker", "connections", "busy", "ring waits");
	for (int i = 0; i < 1000; i++) {
		double busy;

		snprintf(series, sizeof(series), "\nwebsocket_worker_connections{worker=\"%d\"}",
			 i);
		if (!strstr(text, series))
			return;
		fprintf(out, "%8d %12.0f", i, metric_sum(text, series + 1));
		snprintf(series, sizeof(series),
			 "websocket_worker_loop_busy_seconds_total{worker=\"%d\"}", i);
		busy = metric_sum(text, series);
		snprintf(series, sizeof(series),
			 "websocket_worker_ring_overflows_total{worker=\"%d\"}", i);
		fprintf(out, " %7.2f %% %12.0f\n", seconds > 0 ? 100 * busy / seconds : 0,
			metric_sum(text, series));
	}
}

static void print_traffic(FILE *out, const char *text)
{
	double count = metric_sum(text, "websocket_message_latency_seconds_count");
	char a[32], b[32];

	fprintf(out, "connections  %.0f open, %.0f since the start, %.0f refused\n",
		metric_sum(text, "websocket_active_connections"),
		metric_sum(text, "websocket_total_connections"),
		metric_sum(text, "websocket_handshakes_refused_total"));
	fprintf(out, "channels     %.0f\n", metric_sum(text, "websocket_channels"));
	fprintf(out, "messages     %.0f received, %.0f sent, %.0f in error\n",
		metric_sum(text, "websocket_messages_received_total"),
		metric_sum(text, "websocket_messages_sent_total"),
		metric_sum(text, "websocket_message_errors_total"));
	fprintf(out, "bytes        %s received, %s sent\n",
		size_text(a, metric_sum(text, "websocket_received_bytes_total")),
		size_text(b, metric_sum(text, "websocket_sent_bytes_total")));
	if (count > 0)
		fprintf(out, "latency      %.3f ms on average\n",
			1000 * metric_sum(text, "websocket_message_latency_seconds_sum") / count);
	fprintf(out, "slow clients %.0f closed, %.0f messages skipped\n",
		metric_sum(text, "websocket_slow_consumer_actions_total{action=\"disconnect\"}"),
		metric_sum(text, "websocket_messages_skipped_total"));
	fprintf(out, "waiting      %.0f messages, %s; %s held\n",
		metric_sum(text, "websocket_queue_messages"),
		size_text(a, metric_sum(text, "websocket_queue_bytes")),
		size_text(b, metric_sum(text, "websocket_log_memory_bytes")));
}

void control_print_status(FILE *out, const char *metrics, const char *not_ready,
			  uint64_t now_wall_ms)
{
	double start = metric_sum(metrics, "process_start_time_seconds");
	uint64_t seconds = seconds_since(start, now_wall_ms);
	char version[80], text[32];

	label_of(metrics, "wsbind_build_info", "version", version, sizeof(version));
	fprintf(out, "wsbind %s, running for %s\n\n", version, age_text(text, seconds));
	if (not_ready) {
		fprintf(out, "ready        no: ");
		control_print_text(out, not_ready);
	} else {
		fprintf(out, "ready        yes\n");
	}
	print_traffic(out, metrics);
	fprintf(out, "memory       %s resident\n",
		size_text(text, metric_sum(metrics, "process_resident_memory_bytes")));
	fprintf(out, "open files   %.0f of %.0f\n", metric_sum(metrics, "process_open_fds"),
		metric_sum(metrics, "process_max_fds"));
	print_workers(out, metrics, (double)seconds);
}

bool control_page_read(const char *text, size_t n, struct control_page *ret)
{
	struct json j = json_open(text, n);
	struct control_page page = {0};
	bool has_total = false;
	char key[32];

	if (!json_enter(&j, '{'))
		return false;
	while (json_next(&j, key, sizeof(key))) {
		if (strcmp(key, "clients") == 0 && json_enter(&j, '[')) {
			page.objects = j.p;
			while (json_next(&j, NULL, 0))
				json_skip(&j);
			page.objects_n = (size_t)(j.p - page.objects) - 1;
		} else if (strcmp(key, "total") == 0) {
			page.total = json_number(&j);
			has_total = true;
		} else if (strcmp(key, "next") == 0) {
			page.next = json_number(&j);
			/* null, and an offset of 0, which would go round and round */
			page.has_next = page.next > 0;
		} else {
			json_skip(&j);
		}
	}
	if (j.is_broken || !page.objects || !has_total)
		return false;
	*ret = page;
	return true;
}

static void take_text(struct json *j, char *out, size_t cap)
{
	char raw[TEXT_MAX];

	json_text(j, raw, sizeof(raw));
	text_escape(out, cap, raw, strlen(raw));
}

/* A list of strings, with commas; an empty one is the lobby among channels: "", as in -c "". */
static void take_list(struct json *j, char *out, size_t cap)
{
	size_t n = 0;

	out[0] = '\0';
	if (!json_enter(j, '[')) {
		json_skip(j);
		return;
	}
	while (json_next(j, NULL, 0)) {
		char item[TEXT_MAX];

		take_text(j, item, sizeof(item));
		if (n >= cap - 1)
			continue;
		n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? "," : "",
				      item[0] ? item : "\"\"");
		n = MIN(n, cap - 1);
	}
}

/* Unix seconds become an age; anything else stays as it is. */
static void take_age(struct json *j, uint64_t now_wall_ms, char out[32])
{
	char raw[32];
	uint64_t then;

	take_text(j, raw, sizeof(raw));
	if (text_parse_count(raw, &then) == 0)
		age_text(out, seconds_since((double)then, now_wall_ms));
	else
		snprintf(out, 32, "%s", raw);
}

static void row_take(struct json *j, const char *key, uint64_t now_wall_ms, struct row *row)
{
	if (strcmp(key, "id") == 0)
		take_text(j, row->id, sizeof(row->id));
	else if (strcmp(key, "session_id") == 0)
		take_text(j, row->session, sizeof(row->session));
	else if (strcmp(key, "user_id") == 0)
		take_text(j, row->user, sizeof(row->user));
	else if (strcmp(key, "address") == 0)
		take_text(j, row->address, sizeof(row->address));
	else if (strcmp(key, "connected_at") == 0)
		take_age(j, now_wall_ms, row->connected);
	else if (strcmp(key, "last_heartbeat") == 0)
		take_age(j, now_wall_ms, row->heartbeat);
	else if (strcmp(key, "capabilities") == 0)
		take_list(j, row->capabilities, sizeof(row->capabilities));
	else if (strcmp(key, "channels") == 0)
		take_list(j, row->channels, sizeof(row->channels));
	else if (strcmp(key, "queued_bytes") == 0)
		row->queued_bytes = json_number(j);
	else
		json_skip(j);
}

void control_print_clients_head(FILE *out)
{
	fprintf(out, "%-36s %-36s %-21s %-24s %9s %9s %10s %-12s %s\n", "ID", "SESSION", "ADDRESS",
		"USER", "CONNECTED", "LAST SIGN", "QUEUED", "CAN", "CHANNELS");
}

void control_print_clients(FILE *out, const struct control_page *page, uint64_t now_wall_ms)
{
	struct json j = json_open(page->objects, page->objects_n + 1); /* with the bracket */
	char size[32], key[32];

	while (json_next(&j, NULL, 0)) {
		struct row row = {0};

		if (!json_enter(&j, '{')) {
			json_skip(&j);
			continue;
		}
		while (json_next(&j, key, sizeof(key)))
			row_take(&j, key, now_wall_ms, &row);
		fprintf(out, "%-36s %-36s %-21s %-24s %9s %9s %10s %-12s %s\n", row.id,
			row.session[0] ? row.session : "-", row.address, row.user, row.connected,
			row.heartbeat, size_text(size, (double)row.queued_bytes),
			row.capabilities[0] ? row.capabilities : "-", row.channels);
	}
}

void control_print_text(FILE *out, const char *text)
{
	char shown[LINE_MAX_SHOWN];

	while (*text) {
		size_t n = strcspn(text, "\n");

		text_escape(shown, sizeof(shown), text, n);
		fprintf(out, "%s\n", shown);
		text += n + (text[n] == '\n');
	}
}
