/* SPDX-License-Identifier: MIT */
/* GET /channels: all workers say what they have, and the busiest are shown. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/text.h"
#include "containers/buf.h"
#include "server/server_private.h"
#include "worker/channel_list.h"

/* Goes from worker to worker, in as many turns of each as it takes. */
struct channels_query {
	struct worker_task task;
	struct server *server;
	struct admin_request *req;
	struct channel_list list;
	enum channel_order order;
	uint64_t offset, limit;
	unsigned at;
	int result; /* of channel_list_add() */
};

static void channels_run(struct worker *w, struct worker_task *t)
{
	struct channels_query *q = CONTAINER_OF(t, struct channels_query, task);

	q->result = channel_list_add(&w->hub, &q->list);
	worker_task_answer(w, t);
}

/* One channel, unless it has gone meanwhile. */
static int append_channel(struct buf *out, struct directory *d, uint32_t slot,
			  const struct channel_cell *cell)
{
	char name[DIRECTORY_NAME_MAX + 1], json[TEXT_JSON_CAP(DIRECTORY_NAME_MAX)];
	int n = directory_name(d, slot, cell->generation, name);

	if (n < 0)
		return 0;
	text_json(json, sizeof(json), name, (size_t)n);
	return buf_printf(out,
			  "%s{\"name\":\"%s\",\"members\":%" PRIu32 ",\"lagging\":%" PRIu32
			  ",\"messages_in\":%" PRIu32 ",\"bytes_in\":%" PRIu64
			  ",\"messages_out\":%" PRIu64 ",\"bytes_out\":%" PRIu64
			  ",\"history_messages\":%" PRIu64 ",\"history_bytes\":%" PRIu64 "}",
			  out->len ? "," : "", json, cell->members, cell->slow, cell->messages,
			  cell->bytes, channel_cell_out(cell, cell->messages),
			  channel_cell_out(cell, cell->bytes), cell->kept, cell->kept_bytes);
}

/* The page that was asked for. */
static void channels_reply(struct channels_query *q)
{
	struct directory *d = &q->server->pool->shared.directory;
	uint32_t *slots = NULL;
	int64_t total = channel_list_sort(&q->list, q->order, &slots);
	struct buf out = {0};
	uint64_t listed = 0;
	int r = total < 0 ? (int)total : 0;

	for (uint64_t i = q->offset; r == 0 && i < (uint64_t)total && listed < q->limit; i++) {
		r = append_channel(&out, d, slots[i], &q->list.cells[slots[i]]);
		listed++;
	}
	if (r == 0)
		admin_reply_list(q->req, "channels", &out, listed, (uint64_t)total);
	else
		admin_reply(q->req, 500, NULL, "out of memory\n");
	buf_fini(&out);
	free(slots);
}

static void channels_done(struct worker_task *t)
{
	struct channels_query *q = CONTAINER_OF(t, struct channels_query, task);

	if (q->result == 0)
		q->at++;
	if (q->at < q->server->pool->n) {
		worker_post(q->server->pool->workers[q->at], t);
		return;
	}
	channels_reply(q);
	free(q->list.cells);
	free(q);
}

void server_list_channels(struct server *s, struct admin_request *req)
{
	struct channels_query *q;
	struct admin_page page;
	unsigned order;

	if (!admin_read_page(req, &page) ||
	    !admin_read_order(req, channel_order_name, CHANNELS_N_ORDERS, &order))
		return;
	q = calloc(1, sizeof(*q));
	if (!q || channel_list_init(&q->list, &s->pool->shared.directory)) {
		admin_reply(req, 500, NULL, "out of memory\n");
		free(q);
		return;
	}
	q->task = (struct worker_task){.run = channels_run, .done = channels_done};
	q->server = s;
	q->req = req;
	q->order = (enum channel_order)order;
	q->offset = page.offset;
	q->limit = page.limit;
	worker_post(s->pool->workers[0], &q->task);
}
