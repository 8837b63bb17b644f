/* SPDX-License-Identifier: MIT */
#include "spool/spool_queue.h"

/* What a line may have written each time that it comes round. */
#define TURN_BYTES (256 * 1024)
/* A file's end waits for the disk: it costs as much as these bytes. */
#define FILE_END_BYTES (64 * 1024)
/* More than this no job costs: sixteen rounds are enough of waiting. */
#define MAX_COST (16 * TURN_BYTES)

void spool_queue_init(struct spool_queue *q)
{
	list_init(&q->lines);
	for (size_t i = 0; i < SPOOL_QUEUE_BUCKETS; i++)
		list_init(&q->bucket[i]);
}

static struct list *queue_bucket(struct spool_queue *q, struct spool_owner o)
{
	/* Serials count up: a multiplication spreads them (Fibonacci hashing). */
	uint64_t hash = (o.serial * SPOOL_MAX_WORKERS + o.worker) * 0x9e3779b97f4a7c15ULL;

	return &q->bucket[hash >> 32 & (SPOOL_QUEUE_BUCKETS - 1)];
}

/* The first job of an owner's line, or NULL. */
static struct spool_job *queue_find(struct spool_queue *q, struct spool_owner o)
{
	LIST_FOREACH (node, queue_bucket(q, o)) {
		struct spool_job *job = CONTAINER_OF(node, struct spool_job, line.bucket);
		const struct spool_owner *has = &job->chunk.owner;

		if (has->serial == o.serial && has->worker == o.worker)
			return job;
	}
	return NULL;
}

void spool_queue_put(struct spool_queue *q, struct spool_job *job)
{
	struct spool_job *first = queue_find(q, job->chunk.owner);
	bool is_chunk = job->kind == SPOOL_JOB_CHUNK;

	job->next = NULL;
	if (first) {
		first->line.last->next = job;
	} else {
		first = job;
		first->line = (struct spool_line){0};
		list_init(&first->line.turn);
		list_init(&first->line.bucket);
		list_add_tail(&q->lines, &first->line.turn);
		list_add_tail(queue_bucket(q, job->chunk.owner), &first->line.bucket);
	}
	first->line.last = job;
	first->line.n_chunks += is_chunk;
	first->line.n_bytes += job->chunk.n;
	q->n_chunks += is_chunk;
	q->n_bytes += job->chunk.n;
}

/* What is written for it at most, as far as that can be told before it is unpacked. */
static uint64_t job_cost(const struct spool_job *job)
{
	const struct spool_chunk *chunk = &job->chunk;
	uint64_t bytes = chunk->kind == ZIP_NONE ? chunk->n : MAX(chunk->n, chunk->unpack_limit);

	if (job->kind != SPOOL_JOB_CHUNK)
		return 0;
	return MIN(bytes + (chunk->is_last ? FILE_END_BYTES : 0), (uint64_t)MAX_COST);
}

/* Puts @to, which is in no list, where @from was. */
static void node_replace(struct list *from, struct list *to)
{
	list_add_tail(from, to);
	list_del(from);
}

/* Takes the first job out of its line, whose state moves on. */
static void line_pop(struct spool_queue *q, struct spool_job *job)
{
	struct spool_job *next = job->next;
	bool is_chunk = job->kind == SPOOL_JOB_CHUNK;

	job->line.n_chunks -= is_chunk;
	job->line.n_bytes -= job->chunk.n;
	q->n_chunks -= is_chunk;
	q->n_bytes -= job->chunk.n;
	if (!next) {
		list_del(&job->line.turn);
		list_del(&job->line.bucket);
		return;
	}
	next->line = job->line;
	list_init(&next->line.turn);
	list_init(&next->line.bucket);
	node_replace(&job->line.turn, &next->line.turn);
	node_replace(&job->line.bucket, &next->line.bucket);
}

struct spool_job *spool_queue_take(struct spool_queue *q, bool *ret_room)
{
	struct list *first;

	*ret_room = false;
	while ((first = list_first(&q->lines))) {
		struct spool_job *job = CONTAINER_OF(first, struct spool_job, line.turn);
		struct spool_line *line = &job->line;
		uint64_t cost = job_cost(job);

		if (line->credit < cost) {
			/* Its turn is over; what is left of it counts in the next one. */
			line->credit += TURN_BYTES;
			list_del(&line->turn);
			list_add_tail(&q->lines, &line->turn);
			continue;
		}
		line->credit -= cost;
		if (line->was_refused && line->n_chunks <= SPOOL_CLIENT_JOBS / 2 &&
		    line->n_bytes <= SPOOL_CLIENT_BYTES / 2) {
			*ret_room = true;
			line->was_refused = false;
		}
		line_pop(q, job);
		return job;
	}
	return NULL;
}

bool spool_queue_has_room(struct spool_queue *q, struct spool_owner owner, size_t n)
{
	struct spool_job *first = queue_find(q, owner);
	bool is_small = n <= SPOOL_SMALL_CHUNK;
	bool fits;

	/* The first chunk of an empty queue has room, however large it is: else it never would. */
	if (!q->n_chunks)
		return true;
	fits = q->n_chunks < SPOOL_MAX_JOBS && n <= SPOOL_MAX_BYTES &&
	       q->n_bytes <= SPOOL_MAX_BYTES - n;
	if (!first || !first->line.n_chunks)
		return fits || (is_small && q->n_chunks < SPOOL_MAX_JOBS_IN_ALL &&
				q->n_bytes < 2 * SPOOL_MAX_BYTES);
	fits = fits && first->line.n_chunks < SPOOL_CLIENT_JOBS &&
	       first->line.n_bytes + n <= SPOOL_CLIENT_BYTES;
	first->line.was_refused |= !fits;
	return fits;
}

bool spool_queue_is_half_free(const struct spool_queue *q)
{
	return q->n_chunks <= SPOOL_MAX_JOBS / 2 && q->n_bytes <= SPOOL_MAX_BYTES / 2;
}
