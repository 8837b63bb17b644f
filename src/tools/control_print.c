/* SPDX-License-Identifier: MIT */
#include "tools/control_print.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "tools/json.h"
#include "tools/metric_text.h"

#define TEXT_MAX 256
#define LIST_MAX 512
#define LINE_MAX_SHOWN 8192 /* of a line of text from the daemon */

/* Of three digits or four, as people read sizes; an exact one is in the JSON. */
static const char *format_size(char out[32], double bytes)
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
static const char *format_age(char out[32], uint64_t seconds)
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

	/* After the clock was set back an age would be below zero. */
	return age > 0 ? (uint64_t)age : 0;
}

static void print_workers(FILE *out, const char *text, double seconds)
{
	char series[100];

	fprintf(out, "\n%8s %12s %9s %12s\n", "worker", "connections", "busy", "ring waits");
	for (int i = 0; i < 1000; i++) {
		double busy;

		snprintf(series, sizeof(series), "websocket_worker_connections{worker=\"%d\"}", i);
		/*
		 * How many there are stands nowhere else: the first that is missing ends the
		 * table.
		 */
		if (!metric_is_there(text, series))
			return;
		fprintf(out, "%8d %12.0f", i, metric_sum(text, series));
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
		format_size(a, metric_sum(text, "websocket_received_bytes_total")),
		format_size(b, metric_sum(text, "websocket_sent_bytes_total")));
	/* An average of nothing is no zero. */
	if (count > 0)
		fprintf(out, "latency      %.3f ms on average\n",
			1000 * metric_sum(text, "websocket_message_latency_seconds_sum") / count);
	fprintf(out, "slow clients %.0f closed, %.0f messages skipped\n",
		metric_sum(text, "websocket_slow_consumer_actions_total{action=\"disconnect\"}"),
		metric_sum(text, "websocket_messages_skipped_total"));
	fprintf(out, "waiting      %.0f messages, %s; %s held\n",
		metric_sum(text, "websocket_queue_messages"),
		format_size(a, metric_sum(text, "websocket_queue_bytes")),
		format_size(b, metric_sum(text, "websocket_log_memory_bytes")));
}

void control_print_status(FILE *out, const char *metrics, const char *not_ready,
			  uint64_t now_wall_ms)
{
	double start = metric_sum(metrics, "process_start_time_seconds");
	uint64_t seconds = seconds_since(start, now_wall_ms);
	char version[80], text[32];

	/* The daemon's version, which may be another one than this program's after an upgrade. */
	metric_label(metrics, "wsbind_build_info", "version", version, sizeof(version));
	fprintf(out, "wsbind %s, running for %s\n\n", version, format_age(text, seconds));
	if (not_ready) {
		fprintf(out, "ready        no: ");
		control_print_text(out, not_ready);
	} else {
		fprintf(out, "ready        yes\n");
	}
	print_traffic(out, metrics);
	fprintf(out, "memory       %s resident\n",
		format_size(text, metric_sum(metrics, "process_resident_memory_bytes")));
	fprintf(out, "open files   %.0f of %.0f\n", metric_sum(metrics, "process_open_fds"),
		metric_sum(metrics, "process_max_fds"));
	print_workers(out, metrics, (double)seconds);
}

const char *const control_list_name[CONTROL_N_LISTS] = {
	[CONTROL_CLIENTS] = "clients",
	[CONTROL_CHANNELS] = "channels",
};

bool control_page_read(const char *text, size_t n, enum control_list list, struct control_page *ret)
{
	struct json j = json_open(text, n);
	struct control_page page = {0};
	bool has_total = false;
	char key[32];

	/* The objects are not copied: who prints them walks over the same text again. */
	if (!json_enter(&j, '{'))
		return false;
	while (json_next(&j, key, sizeof(key))) {
		if (strcmp(key, control_list_name[list]) == 0 && json_enter(&j, '[')) {
			page.objects = j.p;
			for (page.n = 0; json_next(&j, NULL, 0); page.n++)
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

/* ------------------------------------------------------------------ lists as tables */

enum column_kind {
	COLUMN_TEXT,
	COLUMN_NAME, /* of a channel */
	COLUMN_LIST, /* of strings */
	COLUMN_AGE,  /* Unix seconds */
	COLUMN_SIZE, /* bytes */
};

#define COLUMNS_MAX 12

/* A table: members of its JSON objects, and where and how each is shown. */
static const struct column {
	const char *key, *title;
	int width; /* below 0: at the left */
	enum column_kind kind;
	const char *empty; /* what stands there instead of nothing */
} columns[CONTROL_N_LISTS][COLUMNS_MAX] = {
	[CONTROL_CLIENTS] =
		{
			{"id", "ID", -36, COLUMN_TEXT, ""},
			{"session_id", "SESSION", -36, COLUMN_TEXT, "-"},
			{"address", "ADDRESS", -21, COLUMN_TEXT, ""},
			{"user_id", "USER", -24, COLUMN_TEXT, ""},
			{"connected_at", "CONNECTED", 9, COLUMN_AGE, ""},
			{"last_heartbeat", "LAST SIGN", 9, COLUMN_AGE, ""},
			{"queued_bytes", "QUEUED", 10, COLUMN_SIZE, "0 B"},
			{"messages_in", "IN", 9, COLUMN_TEXT, "-"},
			{"messages_out", "OUT", 10, COLUMN_TEXT, "-"},
			{"capabilities", "CAN", -12, COLUMN_LIST, "-"},
			{"channels", "CHANNELS", 0, COLUMN_LIST, ""},
		},
	/* The name comes last: in 80 columns all of the rest is to be seen, with some of it. */
	[CONTROL_CHANNELS] =
		{
			{"members", "MEMBERS", 7, COLUMN_TEXT, ""},
			{"lagging", "LAGGING", 7, COLUMN_TEXT, ""},
			{"messages_in", "IN/S", 7, COLUMN_TEXT, ""},
			{"bytes_in", "BYTES/S", 10, COLUMN_SIZE, ""},
			{"messages_out", "OUT/S", 8, COLUMN_TEXT, ""},
			{"bytes_out", "BYTES/S", 10, COLUMN_SIZE, ""},
			{"history_messages", "KEPT", 6, COLUMN_TEXT, "-"},
			{"history_bytes", "BYTES", 10, COLUMN_SIZE, "-"},
			{"name", "CHANNEL", 0, COLUMN_NAME, ""},
		},
};

/* A line of a table, escaped already. */
struct row {
	char cell[COLUMNS_MAX][LIST_MAX];
};

static void cell_take_text(struct json *j, char out[LIST_MAX])
{
	char raw[TEXT_MAX];

	json_text(j, raw, sizeof(raw));
	text_escape(out, TEXT_MAX, raw, strlen(raw));
}

/* With commas; an empty string is the lobby among channels: "", as in -c "". */
static void cell_take_list(struct json *j, char out[LIST_MAX])
{
	size_t n = 0;

	out[0] = '\0';
	if (!json_enter(j, '[')) {
		json_skip(j);
		return;
	}
	while (json_next(j, NULL, 0)) {
		char item[LIST_MAX];

		/* Taken also when the cell is full, since the walk has to go on behind it. */
		cell_take_text(j, item);
		if (n >= LIST_MAX - 1)
			continue;
		n += (size_t)snprintf(out + n, LIST_MAX - n, "%s%s", n ? "," : "",
				      item[0] ? item : "\"\"");
		n = MIN(n, (size_t)LIST_MAX - 1);
	}
}

/* What is no number stays as it is: it is the daemon's, and may say more than an age. */
static void cell_take_age(struct json *j, uint64_t now_wall_ms, char out[LIST_MAX])
{
	uint64_t then;

	cell_take_text(j, out);
	if (text_parse_count(out, &then) == 0)
		format_age(out, seconds_since((double)then, now_wall_ms));
}

static void cell_take(struct json *j, enum column_kind kind, uint64_t now_wall_ms,
		      char out[LIST_MAX])
{
	switch (kind) {
	case COLUMN_TEXT:
		cell_take_text(j, out);
		break;
	case COLUMN_NAME:
		cell_take_text(j, out);
		if (!out[0])
			snprintf(out, LIST_MAX, "\"\""); /* the lobby, as in -c "" */
		break;
	case COLUMN_LIST:
		cell_take_list(j, out);
		break;
	case COLUMN_AGE:
		cell_take_age(j, now_wall_ms, out);
		break;
	case COLUMN_SIZE:
		format_size(out, (double)json_number(j));
		break;
	}
}

/* A member that no column shows, perhaps of a newer daemon, is passed over. */
static void row_take(struct row *row, const struct column *table, struct json *j, const char *key,
		     uint64_t now_wall_ms)
{
	for (size_t i = 0; i < COLUMNS_MAX && table[i].key; i++) {
		if (strcmp(table[i].key, key) == 0) {
			cell_take(j, table[i].kind, now_wall_ms, row->cell[i]);
			return;
		}
	}
	json_skip(j);
}

static void row_print(const struct row *row, const struct column *table, FILE *out)
{
	for (size_t i = 0; i < COLUMNS_MAX && table[i].key; i++) {
		const char *cell = row->cell[i][0] ? row->cell[i] : table[i].empty;

		fprintf(out, "%s%*s", i > 0 ? " " : "", table[i].width, cell);
	}
	fputc('\n', out);
}

void control_print_head(FILE *out, enum control_list list)
{
	const struct column *table = columns[list];

	for (size_t i = 0; i < COLUMNS_MAX && table[i].key; i++)
		fprintf(out, "%s%*s", i > 0 ? " " : "", table[i].width, table[i].title);
	fputc('\n', out);
}

void control_print_page(FILE *out, enum control_list list, const struct control_page *page,
			uint64_t now_wall_ms)
{
	struct json j = json_open(page->objects, page->objects_n + 1); /* with the bracket */
	char key[32];

	while (json_next(&j, NULL, 0)) {
		struct row row = {0};

		if (!json_enter(&j, '{')) {
			json_skip(&j);
			continue;
		}
		/* Printed when it is whole: the daemon's order of members is none of ours. */
		while (json_next(&j, key, sizeof(key)))
			row_take(&row, columns[list], &j, key, now_wall_ms);
		row_print(&row, columns[list], out);
	}
}

void control_print_text(FILE *out, const char *text)
{
	char shown[LINE_MAX_SHOWN];

	/*
	 * Line by line: the daemon's words keep their lines, what clients made up in them doesn't.
	 */
	while (*text) {
		size_t n = strcspn(text, "\n");

		text_escape(shown, sizeof(shown), text, n);
		fprintf(out, "%s\n", shown);
		text += n + (text[n] == '\n');
	}
}
