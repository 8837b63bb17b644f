/* SPDX-License-Identifier: MIT */
#include "server/outgoing.h"

#include "server/store.h"
#include "service/systemd.h"

#define BARRIER_NS (5 * NS_PER_S)

static int grow_records(struct record_writer *w, size_t need)
{
	struct outgoing *out = CONTAINER_OF(w, struct outgoing, writer);
	int r = memfile_grow(&out->records, need);

	/* Also after a failure: the file may have been mapped somewhere else before. */
	w->data = out->records.data;
	w->cap = out->records.bytes;
	return r;
}

int outgoing_try(uint64_t connections, size_t *ret_capacity)
{
	struct memfile records;
	int r = memfile_create(&records, STORE_RECORDS);

	/* Both at once, as they will be. */
	if (r == 0)
		r = parcel_try(connections, ret_capacity);
	memfile_fini(&records);
	return r;
}

int outgoing_write(struct outgoing *out, struct worker_pool *p, int history_fd)
{
	int r = memfile_create(&out->records, STORE_RECORDS);

	out->writer = (struct record_writer){.grow = grow_records};
	out->history_fd = history_fd;
	if (r == 0)
		r = handover_save(p, &handover_ops, NULL, &out->writer, &out->report);
	/* Nobody can cut it any more: whoever maps it would fault. */
	if (r == 0)
		r = memfile_seal(&out->records, out->writer.len);
	if (r == 0)
		r = handover_fill_parcel(p, &out->parcel);
	out->n_listeners = worker_pool_sockets(p, out->listener, ARRAY_LEN(out->listener));
	return r;
}

static int store_listeners(const struct outgoing *out, enum worker_listener_kind kind)
{
	int fds[ARRAY_LEN(out->listener)];
	unsigned n = 0;

	for (unsigned i = 0; i < out->n_listeners; i++)
		if (out->listener[i].kind == kind)
			fds[n++] = out->listener[i].fd;
	return store_put(store_listener_name[kind], fds, n);
}

int outgoing_store(struct outgoing *out)
{
	int r = store_put(STORE_RECORDS, &out->records.fd, 1);

	/* It may be there already, which systemd sees. */
	if (r == 0)
		r = store_put(STORE_HISTORY, &out->history_fd, 1);
	if (r == 0)
		r = store_put(STORE_PARCEL, out->parcel.end[0], 2 * out->parcel.n_pairs);
	/* Sockets of activation come last in the enum; the manager has those itself. */
	for (int kind = 0; kind < LISTENER_ACTIVATED && r == 0; kind++)
		r = store_listeners(out, (enum worker_listener_kind)kind);
	/*
	 * Descriptors are the manager's once it has read the message, not once it was sent: this
	 * process must not end before.
	 */
	return r ? r : systemd_barrier(BARRIER_NS);
}

void outgoing_discard(struct outgoing *out)
{
	parcel_fini(&out->parcel);
	memfile_fini(&out->records);
}

unsigned outgoing_count_descriptors(const struct worker_pool *p)
{
	struct worker_socket listeners[OUTGOING_MAX_LISTENERS];

	/* The parcel's size is known only when it is full, the files of records and of history are
	 * one each. */
	return worker_pool_sockets(p, listeners, ARRAY_LEN(listeners)) + 2 * PARCEL_MAX_PAIRS + 2;
}
