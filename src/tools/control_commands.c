/* SPDX-License-Identifier: MIT */
/* What each command prints of the daemon's answers. */
#include "tools/control_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "tools/control_print.h"
#include "tools/json.h"

#define PAGE ((uint64_t)1000) /* clients or channels that one request asks for */
#define PUBLISH_MAX ((size_t)256 << 20)

/* ---------------------------------------------------------------------- status */

int control_run_status(struct control_call *c)
{
	struct control_answer metrics = {0}, ready = {0};
	int r = control_ask(c, c->command->route, "", NULL, 0, &metrics);

	if (r == 0)
		r = control_ask(c, &admin_routes[ADMIN_ROUTE_readyz], "", NULL, 0, &ready);
	/*
	 * A daemon that is not ready still counts: it says so with 503, and is shown all the same.
	 */
	if (r == 0 && metrics.status != 200)
		r = control_fail_answer(c, &metrics);
	if (r == 0) {
		control_print_status(c->io->out, control_answer_text(&metrics),
				     ready.status == 200 ? NULL : control_answer_text(&ready),
				     clock_wall_ms());
		r = control_finish(c);
	}
	buf_fini(&metrics.body);
	buf_fini(&ready.body);
	return r;
}

/* ------------------------------------------------------------ clients and channels */

/* Not before an answer came: what fails at once prints nothing. */
static void print_list_head(const struct control_call *c, enum control_list list)
{
	if (c->is_json)
		fprintf(c->io->out, "{\"%s\":[", control_list_name[list]);
	else
		control_print_head(c->io->out, list);
}

static void print_rows(const struct control_call *c, enum control_list list,
		       const struct control_page *page, bool is_first)
{
	if (is_first)
		print_list_head(c, list);
	if (!c->is_json) {
		control_print_page(c->io->out, list, page, clock_wall_ms());
	} else if (page->objects_n > 0) {
		fputs(is_first ? "" : ",", c->io->out);
		fwrite(page->objects, 1, page->objects_n, c->io->out);
	}
}

static int query_add(struct buf *query, const char *name, const char *value)
{
	int r = value ? buf_printf(query, "&%s=", name) : 0;

	return r || !value ? r : control_http_encode(query, value);
}

/* @shown: rows that were printed before. */
static int page_query(const struct control_call *c, uint64_t offset, uint64_t shown,
		      struct buf *query)
{
	uint64_t limit = c->limit ? MIN(c->limit - shown, PAGE) : PAGE;
	int r = buf_printf(query, "?offset=%" PRIu64 "&limit=%" PRIu64, offset, limit);

	if (r == 0)
		r = query_add(query, "channel", c->channel);
	if (r == 0)
		r = query_add(query, "user", c->user);
	return r ? r : query_add(query, "sort", c->sort);
}

/* How far a list was printed. */
struct paging {
	uint64_t next; /* offset of the page to come; 0: there is none */
	uint64_t shown;
	uint64_t total;
};

static int print_page(struct control_call *c, enum control_list list, struct paging *p)
{
	struct control_answer a = {0};
	struct control_page page = {0};
	struct buf query = {0};
	int r = page_query(c, p->next, p->shown, &query);

	if (r < 0)
		r = control_fail(c, "%s", strerror(-r));
	else
		r = control_ask(c, c->command->route, (const char *)query.data, NULL, 0, &a);
	buf_fini(&query);
	if (r == 0 && a.status != 200)
		r = control_fail_answer(c, &a);
	/* A page that leads back would have us ask for ever. */
	else if (r == 0 && (!control_page_read(control_answer_text(&a), a.body.len, list, &page) ||
			    (page.has_next && page.next <= p->next)))
		r = control_fail_nonsense(c);
	if (r == 0) {
		print_rows(c, list, &page, p->next == 0);
		p->shown += page.n;
		/* Some left while we paged: nothing follows an empty page. */
		p->next = page.has_next && page.n > 0 ? page.next : 0;
		p->total = page.total;
	}
	buf_fini(&a.body);
	return r;
}

static int run_list(struct control_call *c, enum control_list list)
{
	struct paging p = {0};
	int r;

	/* Page by page, so that neither side has to hold a million clients in memory. */
	do {
		r = print_page(c, list, &p);
	} while (r == 0 && p.next > 0 && (!c->limit || p.shown < c->limit));
	if (r != 0)
		return r;
	if (c->is_json)
		fprintf(c->io->out, "],\"total\":%" PRIu64 "}\n", p.total);
	return control_finish(c);
}

int control_run_clients(struct control_call *c)
{
	return run_list(c, CONTROL_CLIENTS);
}

int control_run_channels(struct control_call *c)
{
	return run_list(c, CONTROL_CHANNELS);
}

/* ---------------------------------------------------------------------- reload */

int control_run_reload(struct control_call *c)
{
	struct control_answer a = {0};
	int r = control_ask(c, c->command->route, "", NULL, 0, &a);

	/* What is wrong may be many lines: they stand below one that says what it comes to. */
	if (r == 0 && a.status != 200) {
		(void)control_fail(c, "nothing was changed:");
		control_print_text(c->io->err, control_answer_text(&a));
		r = EXIT_FAILURE;
	} else if (r == 0) {
		control_print_text(c->io->out, control_answer_text(&a));
		r = control_finish(c);
	}
	buf_fini(&a.body);
	return r;
}

/* --------------------------------------------------------------------- publish */

/* Standard input up to its end, without the last line break. */
static int read_text_of_input(struct control_call *c, struct buf *text)
{
	for (;;) {
		char piece[4096];
		size_t n = fread(piece, 1, sizeof(piece), c->io->in);
		int r = buf_append(text, piece, n, PUBLISH_MAX);

		if (r < 0)
			return control_fail(c, "standard input: %s", strerror(-r));
		if (n == 0)
			break;
	}
	if (ferror(c->io->in))
		return control_fail(c, "standard input: %s", strerror(errno));
	/* The line break that echo and editors put at the end is not part of the message. */
	if (text->len > 0 && text->data[text->len - 1] == '\n')
		text->len--;
	return 0;
}

/* The answer is {"members":N}; other members that a newer daemon may add come behind it. */
static int print_members(struct control_call *c, const struct control_answer *a)
{
	struct json j = json_open(control_answer_text(a), a->body.len);
	char key[32] = "";
	uint64_t n;

	if (!json_enter(&j, '{') || !json_next(&j, key, sizeof(key)) || strcmp(key, "members") != 0)
		return control_fail_nonsense(c);
	n = json_number(&j);
	fprintf(c->io->out, "reached %" PRIu64 " member%s\n", n, n == 1 ? "" : "s");
	/* The most likely reason why nobody was there: the name was taken from a URL. */
	if (n == 0 && c->channel && c->channel[0] == '/')
		(void)control_fail(c, "a channel's name begins without a slash: -c %s",
				   c->channel + 1);
	return control_finish(c);
}

static int publish_text(struct control_call *c, const void *text, size_t n)
{
	struct control_answer a = {0};
	struct buf query = {0};
	int r = buf_printf(&query, "?channel=");

	if (r == 0)
		r = control_http_encode(&query, c->channel ? c->channel : "");
	if (r < 0) {
		buf_fini(&query);
		return control_fail(c, "%s", strerror(-r));
	}
	/* A text of no bytes is a text, too. */
	r = control_ask(c, c->command->route, (const char *)query.data, text ? text : "", n, &a);
	if (r == 0)
		r = a.status == 200 ? print_members(c, &a) : control_fail_answer(c, &a);
	buf_fini(&query);
	buf_fini(&a.body);
	return r;
}

int control_run_publish(struct control_call *c)
{
	struct buf text = {0};
	int r;

	/* Behind "--" a text may be "-" alone, too: it is standard input all the same. */
	if (strcmp(c->operand, "-") != 0)
		return publish_text(c, c->operand, strlen(c->operand));
	r = read_text_of_input(c, &text);
	if (r == 0)
		r = publish_text(c, text.data, text.len);
	buf_fini(&text);
	return r;
}

/* ------------------------------------------------------------------ disconnect */

int control_run_disconnect(struct control_call *c)
{
	struct control_answer a = {0};
	struct buf query = {0};
	uint8_t id[16];
	int r;

	if (!c->operand == !c->user)
		return control_fail_usage(c, "either ID or --user USER has to say who is meant",
					  "");
	/* A name, or an address, is what most would try first: said before the daemon is asked. */
	if (c->operand && uuid_parse(c->operand, id) < 0)
		return control_fail_usage(c, "not the id of a client: ", c->operand);
	r = buf_printf(&query, c->operand ? "?id=%s" : "?user=", c->operand);
	if (r == 0 && c->user)
		r = control_http_encode(&query, c->user);
	if (r == 0)
		r = buf_append(&query, "", 1, BUF_NO_LIMIT);
	r = r ? control_fail(c, "%s", strerror(-r))
	      : control_ask(c, c->command->route, (const char *)query.data, NULL, 0, &a);
	buf_fini(&query);
	if (r == 0 && a.status != 200) {
		r = control_fail_answer(c, &a);
	} else if (r == 0) {
		fprintf(c->io->out, "%.*s", (int)a.body.len, (const char *)a.body.data);
		r = control_finish(c);
	}
	buf_fini(&a.body);
	return r;
}
