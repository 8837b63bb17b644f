/* SPDX-License-Identifier: MIT */
#include "spool/spool_transfer.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "spool/spool_file.h"

/* file.fd == -1: it broke, and what still comes is dropped. */
struct spool_transfer {
	struct list age;  /* in spool_transfers.by_age */
	struct list open; /* in spool_transfers.open, while it has a file */
	struct spool_transfer *next_in_bucket;
	struct spool_result last; /* owner and latest chunk; becomes the result */
	uint64_t last_ns;
	uint32_t next_sequence;
	struct spool_file file;
};

static_assert((SPOOL_BUCKETS & (SPOOL_BUCKETS - 1)) == 0, "a mask chooses the bucket");

static void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void counter_sub_one(_Atomic uint64_t *counter)
{
	atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed);
}

/* ------------------------------------------------------------------ which there are */

/* Where the transfer of an owner hangs, or would hang. */
static struct spool_transfer **transfer_place(struct spool_transfers *ts, struct spool_owner o)
{
	/* Serials count up: a multiplication spreads them (Fibonacci hashing). */
	uint64_t hash = (o.serial * SPOOL_MAX_WORKERS + o.worker) * 0x9e3779b97f4a7c15ULL;
	struct spool_transfer **at = &ts->bucket[hash >> 32 & (SPOOL_BUCKETS - 1)];

	while (*at &&
	       ((*at)->last.owner.serial != o.serial || (*at)->last.owner.worker != o.worker))
		at = &(*at)->next_in_bucket;
	return at;
}

static struct spool_transfer *transfer_track(struct spool_transfers *ts, struct spool_owner owner)
{
	struct spool_transfer *t;

	/* Broken ones stay until their client goes: they need a bound of their own. */
	if (ts->n == SPOOL_MAX_TRANSFERS)
		return NULL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->file.fd = -1;
	t->last.owner = owner;
	list_init(&t->age);
	list_init(&t->open);
	*transfer_place(ts, owner) = t;
	ts->n++;
	return t;
}

/* What comes after this is taken for another transfer. */
static void transfer_untrack(struct spool_transfers *ts, struct spool_transfer *t)
{
	WB_ASSERT(t->file.fd < 0);
	*transfer_place(ts, t->last.owner) = t->next_in_bucket;
	list_del(&t->age);
	ts->n--;
	free(t);
}

static void result_set_request(struct spool_result *r, const uint8_t *id, uint8_t len)
{
	r->request_id_len = MIN(len, (uint8_t)MSG_REQUEST_ID_MAX);
	memcpy(r->request_id, id, r->request_id_len);
}

static void result_set_chunk(struct spool_result *r, const struct spool_chunk *chunk)
{
	r->owner = chunk->owner;
	r->sequence = chunk->sequence;
	result_set_request(r, chunk->request_id, chunk->request_id_len);
}

void spool_transfers_init(struct spool_transfers *ts)
{
	list_init(&ts->by_age);
	list_init(&ts->open);
	/* Clients outlive a process: its numbers are not those of the one before. */
	ts->next_number = clock_now_ns() / NS_PER_MS;
}

void spool_transfers_fini(struct spool_transfers *ts)
{
	WB_ASSERT(ts->n == 0);
	fd_closep(&ts->dir_fd);
	zip_fini(&ts->zip);
	buf_fini(&ts->scratch);
}

/* ------------------------------------------------------------ the course of a transfer */

/*
 * Chunk 0 begins a file, the ones behind it are appended, the last one publishes it. Whatever
 * fails discards the file, and is reported with the request of the chunk that it happened to;
 * the transfer stays, without a file, until its last chunk, another chunk 0, or its client's end.
 */

static void transfer_opened(struct spool_transfers *ts, struct spool_transfer *t)
{
	list_add_tail(&ts->open, &t->open);
	counter_add(&ts->counters->open, 1);
}

static void transfer_closed(struct spool_transfers *ts, struct spool_transfer *t)
{
	list_del(&t->open);
	counter_sub_one(&ts->counters->open);
}

static void transfer_discard_file(struct spool_transfers *ts, struct spool_transfer *t)
{
	if (t->file.fd < 0)
		return;
	/* Once closed nothing may wait for the disk: spool_clean() removes what stays. */
	if (atomic_load_explicit(ts->is_closed, memory_order_relaxed))
		fd_closep(&t->file.fd);
	else
		spool_file_discard(&t->file);
	spool_meter_shrink(&ts->meter, t->file.bytes);
	transfer_closed(ts, t);
	counter_add(&ts->counters->errors, 1);
}

static const char *reason_of(int error)
{
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
		return "no space left for the file";
	case -ENOMEM:
		return "out of memory";
	case -EBADMSG:
		return "compressed data is damaged";
	case -EMSGSIZE:
		return "chunk unpacks to more than max_message_size";
	case -EMFILE:
		return "too many transfers at once";
	default:
		return "the file cannot be written";
	}
}

/* Whether it is the server that can't, and not the transfer that is wrong. */
static bool error_is_transient(int error)
{
	return error != -EBADMSG && error != -EMSGSIZE && error != -EPROTO && error != -ETIMEDOUT;
}

static void transfer_end(struct spool_transfers *ts, struct spool_transfer *t,
			 const struct spool_result *how)
{
	struct spool_result r = t->last;

	/* A refusal counts as an error too, though no file was begun. */
	if (t->file.fd < 0)
		counter_add(&ts->counters->errors, 1);
	transfer_discard_file(ts, t);
	r.error = how->error;
	r.refusal = how->refusal;
	r.is_transient = how->is_transient;
	r.reason = how->reason;
	r.name = "";
	ts->ops->done(ts->ctx, &r);
}

static void transfer_fail(struct spool_transfers *ts, struct spool_transfer *t, int error,
			  const char *reason)
{
	const struct spool_result how = {
		.error = error,
		.is_transient = error_is_transient(error),
		.reason = reason,
	};

	transfer_end(ts, t, &how);
}

/* What each refusal is. */
static const struct {
	int error;
	bool is_transient;
	const char *reason;
} result_refusals[SPOOL_N_REFUSALS] = {
	[SPOOL_R_FILE_SIZE] = {-EFBIG, false, "the file is larger than spool_max_file_size"},
	[SPOOL_R_SIZE] = {-ENOSPC, true, "no room for it within spool_max_size"},
	[SPOOL_R_FREE] = {-ENOSPC, true, "less of the disk would stay free than spool_min_free"},
	[SPOOL_R_OPEN] = {-EMFILE, true, "too many transfers at once"},
	[SPOOL_R_RATE] = {-EAGAIN, true, "too many files in a second"},
};

static struct spool_result result_refused(enum spool_refusal refusal)
{
	return (struct spool_result){
		.error = result_refusals[refusal].error,
		.refusal = refusal,
		.is_transient = result_refusals[refusal].is_transient,
		.reason = result_refusals[refusal].reason,
		.name = "",
	};
}

static void transfer_refuse(struct spool_transfers *ts, struct spool_transfer *t,
			    enum spool_refusal refusal)
{
	const struct spool_result how = result_refused(refusal);

	transfer_end(ts, t, &how);
}

/* On disk first, then reported: a client that has its answer may throw its own copy away. */
static void transfer_finish(struct spool_transfers *ts, struct spool_transfer *t)
{
	struct spool_result r = t->last;
	int error = spool_file_publish(&t->file);

	if (error < 0) {
		transfer_fail(ts, t, error, reason_of(error));
		return;
	}
	transfer_closed(ts, t);
	counter_add(&ts->counters->files, 1);
	counter_add(&ts->counters->bytes, t->file.bytes);
	r.reason = "";
	r.name = t->file.name;
	r.bytes = t->file.bytes;
	ts->ops->done(ts->ctx, &r);
}

/*
 * The file that was silent longest, of an address or (0) of all; or NULL, where there are fewer
 * than @limit.
 */
static struct spool_transfer *find_stillest(const struct spool_transfers *ts, uint64_t address,
					    uint64_t limit)
{
	struct spool_transfer *oldest = NULL;
	uint64_t n = 0;

	LIST_FOREACH (node, &ts->open) {
		struct spool_transfer *t = CONTAINER_OF(node, struct spool_transfer, open);

		if (address && t->last.owner.address != address)
			continue;
		if (!oldest)
			oldest = t;
		n++;
	}
	return n >= limit ? oldest : NULL;
}

/*
 * Each open file takes a descriptor, and those are for connections. Whoever has begun files and
 * leaves them lying keeps nobody out: the one silent longest goes for one that comes.
 */
static bool make_place(struct spool_transfers *ts, uint64_t address)
{
	uint64_t of_address = ts->meter.limits.address_open;
	struct spool_transfer *t = NULL;

	if (address && of_address)
		t = find_stillest(ts, address, of_address);
	if (!t)
		t = find_stillest(ts, 0, SPOOL_MAX_OPEN);
	if (!t)
		return true;
	if (t->last_ns + SPOOL_YIELD_NS > clock_now_ns())
		return false;
	transfer_refuse(ts, t, SPOOL_R_OPEN);
	return true;
}

/* False: it was refused, or failed. */
static bool transfer_begin(struct spool_transfers *ts, struct spool_transfer *t,
			   const struct spool_chunk *chunk)
{
	enum spool_refusal refusal = spool_meter_begin(&ts->meter, chunk->owner, chunk->announced);
	int r;

	if (refusal == SPOOL_NOT_REFUSED && !make_place(ts, chunk->owner.address))
		refusal = SPOOL_R_OPEN;
	if (refusal != SPOOL_NOT_REFUSED) {
		transfer_refuse(ts, t, refusal);
		return false;
	}
	r = spool_file_open(&t->file, ts->dir_fd, chunk->client_id, ts->next_number++);
	if (r < 0) {
		transfer_fail(ts, t, r, reason_of(r));
		return false;
	}
	transfer_opened(ts, t);
	t->next_sequence = 0;
	return true;
}

/* Unpacks a chunk where that is needed. Return: 0 | -EMSGSIZE | -EBADMSG | -ENOMEM. */
static int chunk_unpack(struct spool_transfers *ts, const struct spool_chunk *chunk,
			const uint8_t **ret, size_t *ret_n)
{
	int r;

	*ret = chunk->data;
	*ret_n = chunk->n;
	if (chunk->kind == ZIP_NONE)
		return 0;
	/* Each chunk is packed by itself, and may be packed differently from the one before. */
	buf_clear(&ts->scratch);
	r = zip_unpack(&ts->zip, chunk->kind, chunk->data, chunk->n, chunk->unpack_limit,
		       &ts->scratch);
	if (r != 0)
		return r == ZIP_E_TOO_BIG ? -EMSGSIZE : r == -ENOMEM ? r : -EBADMSG;
	*ret = ts->scratch.data;
	*ret_n = ts->scratch.len;
	return 0;
}

/* False: it was refused, or failed. */
static bool transfer_write(struct spool_transfers *ts, struct spool_transfer *t,
			   const struct spool_chunk *chunk)
{
	enum spool_refusal refusal;
	const uint8_t *p;
	uint64_t before;
	size_t n;
	int r = chunk_unpack(ts, chunk, &p, &n);

	if (r == 0) {
		refusal = spool_meter_grow(&ts->meter, t->file.bytes, n);
		if (refusal != SPOOL_NOT_REFUSED) {
			transfer_refuse(ts, t, refusal);
			return false;
		}
		t->next_sequence++;
		before = t->file.bytes;
		r = spool_file_write(&t->file, p, n);
		/* A full disk takes a part: what it didn't take is not there. */
		spool_meter_shrink(&ts->meter, n - (t->file.bytes - before));
	}
	if (r < 0)
		transfer_fail(ts, t, r, reason_of(r));
	return r == 0;
}

/* Whether the chunk is the one that @t waits for; says so if it is the one that breaks it. */
static bool transfer_accepts(struct spool_transfers *ts, struct spool_transfer *t,
			     const struct spool_chunk *chunk, bool is_new)
{
	/* A new beginning ends what went before, and is reported with that one's request. */
	if (chunk->sequence == 0) {
		if (t->file.fd >= 0)
			transfer_fail(ts, t, -EPROTO, "a new transfer began before the last chunk");
		result_set_chunk(&t->last, chunk);
		return transfer_begin(ts, t, chunk);
	}
	result_set_chunk(&t->last, chunk);
	/* Reported once: what follows finds it without a file, and is dropped. */
	if (is_new)
		transfer_fail(ts, t, -EPROTO, "the first chunk of the transfer is missing");
	else if (t->file.fd >= 0 && chunk->sequence != t->next_sequence)
		transfer_fail(ts, t, -EPROTO, "a chunk of the transfer is missing");
	return t->file.fd >= 0;
}

/* There is no room to track it, so each of its chunks is told so. */
static void refuse_chunk(struct spool_transfers *ts, const struct spool_chunk *chunk)
{
	struct spool_result r = result_refused(SPOOL_R_OPEN);

	result_set_chunk(&r, chunk);
	counter_add(&ts->counters->errors, 1);
	ts->ops->done(ts->ctx, &r);
}

void spool_transfers_take_chunk(struct spool_transfers *ts, const struct spool_chunk *chunk)
{
	struct spool_transfer *t = *transfer_place(ts, chunk->owner);
	bool is_new = !t;

	if (is_new)
		t = transfer_track(ts, chunk->owner);
	if (!t) {
		refuse_chunk(ts, chunk);
		return;
	}
	/* The youngest now: the list stays sorted without being searched. */
	t->last_ns = clock_now_ns();
	list_del(&t->age);
	list_add_tail(&ts->by_age, &t->age);
	if (!list_is_empty(&t->open)) {
		list_del(&t->open);
		list_add_tail(&ts->open, &t->open);
	}
	if (transfer_accepts(ts, t, chunk, is_new) && transfer_write(ts, t, chunk) &&
	    chunk->is_last)
		transfer_finish(ts, t);
	if (chunk->is_last)
		transfer_untrack(ts, t);
}

void spool_transfers_abort(struct spool_transfers *ts, struct spool_owner owner)
{
	struct spool_transfer *t = *transfer_place(ts, owner);

	if (t) {
		transfer_discard_file(ts, t);
		transfer_untrack(ts, t);
	}
}

void spool_transfers_expire(struct spool_transfers *ts, uint64_t before_ns, int error,
			    const char *reason)
{
	while (!list_is_empty(&ts->by_age)) {
		struct spool_transfer *t =
			CONTAINER_OF(list_first(&ts->by_age), struct spool_transfer, age);

		if (t->last_ns > before_ns)
			return; /* and so are all behind it */
		if (t->file.fd >= 0)
			transfer_fail(ts, t, error, reason);
		transfer_untrack(ts, t);
	}
}

void spool_transfers_trim(struct spool_transfers *ts)
{
	if (ts->n > 0)
		return;
	zip_trim(&ts->zip);
	buf_fini(&ts->scratch);
}

/* ------------------------------------------------------- from one process to the next */

void spool_transfers_resume(struct spool_transfers *ts, const struct spool_unfinished *u)
{
	struct spool_transfer *t =
		*transfer_place(ts, u->owner) ? NULL : transfer_track(ts, u->owner);
	int r;

	if (!t)
		return;
	t->last.sequence = u->sequence;
	result_set_request(&t->last, u->request_id, u->request_id_len);
	t->last_ns = clock_now_ns();
	t->next_sequence = u->next_sequence;
	list_add_tail(&ts->by_age, &t->age);
	/* One that broke stays without a file: what still comes of it is dropped, as before. */
	if (u->is_broken)
		return;
	r = spool_file_reopen(&t->file, ts->dir_fd, u->name, u->part, u->bytes);
	if (r < 0)
		transfer_fail(ts, t, r, reason_of(r));
	else
		transfer_opened(ts, t);
}

bool spool_transfers_take_out(struct spool_transfers *ts, struct spool_unfinished *ret)
{
	struct spool_transfer *t;

	if (list_is_empty(&ts->by_age))
		return false;
	t = CONTAINER_OF(list_first(&ts->by_age), struct spool_transfer, age);
	*ret = (struct spool_unfinished){
		.owner = t->last.owner,
		.bytes = t->file.bytes,
		.next_sequence = t->next_sequence,
		.sequence = t->last.sequence,
		.request_id_len = t->last.request_id_len,
		.is_broken = t->file.fd < 0,
	};
	/* Its file is written as far as it was counted, and is found by its name. */
	memcpy(ret->request_id, t->last.request_id, sizeof(ret->request_id));
	memcpy(ret->name, t->file.name, sizeof(ret->name));
	memcpy(ret->part, t->file.part, sizeof(ret->part));
	fd_closep(&t->file.fd);
	list_del(&t->open);
	transfer_untrack(ts, t);
	return true;
}

static bool is_being_written(void *ctx, const char *name)
{
	const struct spool_transfers *ts = ctx;

	LIST_FOREACH (node, &ts->by_age) {
		const struct spool_transfer *t = CONTAINER_OF(node, struct spool_transfer, age);

		if (t->file.fd >= 0 && strcmp(t->file.part, name) == 0)
			return true;
	}
	return false;
}

void spool_transfers_clean(struct spool_transfers *ts)
{
	/* What cannot be removed now, the next start tries. */
	(void)!spool_file_remove_parts(ts->dir_fd, is_being_written, ts);
}
