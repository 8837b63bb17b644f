/* SPDX-License-Identifier: MIT */
#include "spool/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "containers/buf.h"
#include "containers/list.h"
#include "spool/spool_file.h"

#define BUCKETS 1024

enum job_kind {
	JOB_CHUNK,
	JOB_ABORT, /* the end of its owner's connection */
	JOB_RESUME,
	JOB_CLEAN,
};

struct spool_job {
	struct spool_job *next;
	uint64_t queued_ns;
	enum job_kind kind;
	struct spool_chunk job;
	struct spool_unfinished *kept; /* of JOB_RESUME */
};

/* A transfer. file.fd == -1: broken, and kept only to swallow what still comes. */
struct incoming {
	struct list age; /* in spool.by_age */
	struct incoming *next_in_bucket;
	struct spool_result last; /* owner and latest chunk; becomes the result */
	uint64_t last_ns;
	uint32_t next_sequence;
	struct spool_file file;
};

struct spool {
	const struct spool_ops *ops;
	void *ctx;
	pthread_t thread;

	pthread_mutex_t lock; /* guards the next group */
	pthread_cond_t wake;
	struct spool_job *head;
	struct spool_job **tail;
	size_t n_chunks;  /* in the queue, without aborts */
	size_t n_bytes;   /* of their data */
	uint64_t waiting; /* bit per worker that met a full queue */
	bool is_stopping;
	bool is_leaving; /* what is not complete stays */

	_Atomic bool is_closed;     /* takes no chunks; written under the lock */
	_Atomic uint64_t oldest_ns; /* when the job in hand, or the next, was queued; or 0 */
	struct spool_counters counters;

	/* The spool thread's own. */
	int dir_fd;
	uint64_t next_number; /* for names */
	size_t n_transfers;
	struct list by_age; /* longest silent first */
	struct incoming *bucket[BUCKETS];
	struct zip zip;
	struct buf scratch;
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void count_down(_Atomic uint64_t *counter)
{
	atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed);
}

/* ---- the table of transfers ---- */

static struct incoming **spool_slot(struct spool *s, struct spool_owner o)
{
	uint64_t hash = (o.serial * 64 + o.worker) * 0x9e3779b97f4a7c15ULL;
	struct incoming **at = &s->bucket[hash >> 32 & (BUCKETS - 1)];

	while (*at &&
	       ((*at)->last.owner.serial != o.serial || (*at)->last.owner.worker != o.worker))
		at = &(*at)->next_in_bucket;
	return at;
}

static struct incoming *spool_track(struct spool *s, struct spool_owner owner)
{
	struct incoming *t;

	if (s->n_transfers == SPOOL_MAX_TRANSFERS)
		return NULL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->file.fd = -1;
	t->last.owner = owner;
	list_init(&t->age);
	*spool_slot(s, owner) = t;
	s->n_transfers++;
	return t;
}

static void spool_untrack(struct spool *s, struct incoming *t)
{
	WB_ASSERT(t->file.fd < 0);
	*spool_slot(s, t->last.owner) = t->next_in_bucket;
	list_del(&t->age);
	s->n_transfers--;
	free(t);
}

static void note_chunk(struct spool_result *r, const struct spool_chunk *job)
{
	r->owner = job->owner;
	r->sequence = job->sequence;
	r->request_id_len = MIN(job->request_id_len, (uint8_t)MSG_REQUEST_ID_MAX);
	memcpy(r->request_id, job->request_id, r->request_id_len);
}

/* ---- the course of a transfer ---- */

static void incoming_discard(struct spool *s, struct incoming *t)
{
	if (t->file.fd < 0)
		return;
	/* Once closed nothing may wait for the disk: spool_clean() removes what stays. */
	if (atomic_load_explicit(&s->is_closed, memory_order_relaxed))
		fd_closep(&t->file.fd);
	else
		spool_file_discard(&t->file);
	count_down(&s->counters.open);
	count(&s->counters.errors, 1);
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

/* A refusal counts as an error too, though no file was begun. */
static void incoming_fail(struct spool *s, struct incoming *t, int error, const char *reason)
{
	struct spool_result r = t->last;

	if (t->file.fd < 0)
		count(&s->counters.errors, 1);
	incoming_discard(s, t);
	r.error = error;
	r.reason = reason;
	r.name = "";
	s->ops->done(s->ctx, &r);
}

static void incoming_finish(struct spool *s, struct incoming *t)
{
	struct spool_result r = t->last;
	int error = spool_file_publish(&t->file);

	if (error < 0) {
		incoming_fail(s, t, error, reason_of(error));
		return;
	}
	count_down(&s->counters.open);
	count(&s->counters.files, 1);
	count(&s->counters.bytes, t->file.bytes);
	r.reason = "";
	r.name = t->file.name;
	r.bytes = t->file.bytes;
	s->ops->done(s->ctx, &r);
}

static int incoming_begin(struct spool *s, struct incoming *t, const struct spool_chunk *job)
{
	int r;

	if (atomic_load_explicit(&s->counters.open, memory_order_relaxed) >= SPOOL_MAX_OPEN)
		return -EMFILE;
	r = spool_file_open(&t->file, s->dir_fd, job->client_id, s->next_number++);
	if (r < 0)
		return r;
	count(&s->counters.open, 1);
	t->next_sequence = 0;
	return 0;
}

static int incoming_write(struct spool *s, struct incoming *t, const struct spool_chunk *job)
{
	const uint8_t *p = job->data;
	size_t n = job->n;
	int r;

	if (job->kind != ZIP_NONE) {
		buf_clear(&s->scratch);
		r = zip_unpack(&s->zip, job->kind, p, n, job->unpack_limit, &s->scratch);
		if (r != 0)
			return r == ZIP_E_TOO_BIG ? -EMSGSIZE : r == -ENOMEM ? r : -EBADMSG;
		p = s->scratch.data;
		n = s->scratch.len;
	}
	t->next_sequence++;
	return spool_file_write(&t->file, p, n);
}

/* Whether the chunk is the one that @t waits for; says so if it is the one that breaks it. */
static bool incoming_accepts(struct spool *s, struct incoming *t, const struct spool_chunk *job,
			     bool is_new)
{
	int r;

	if (job->sequence == 0) {
		if (t->file.fd >= 0)
			incoming_fail(s, t, -EPROTO, "a new transfer began before the last chunk");
		note_chunk(&t->last, job);
		r = incoming_begin(s, t, job);
		if (r < 0)
			incoming_fail(s, t, r, reason_of(r));
		return r == 0;
	}
	note_chunk(&t->last, job);
	if (is_new)
		incoming_fail(s, t, -EPROTO, "the first chunk of the transfer is missing");
	else if (t->file.fd >= 0 && job->sequence != t->next_sequence)
		incoming_fail(s, t, -EPROTO, "a chunk of the transfer is missing");
	return t->file.fd >= 0;
}

static void spool_refuse(struct spool *s, const struct spool_chunk *job)
{
	struct spool_result r = {.error = -EMFILE, .reason = reason_of(-EMFILE), .name = ""};

	note_chunk(&r, job);
	count(&s->counters.errors, 1);
	s->ops->done(s->ctx, &r);
}

static void spool_work_chunk(struct spool *s, const struct spool_chunk *job)
{
	struct incoming *t = *spool_slot(s, job->owner);
	bool is_new = !t;
	int r;

	if (is_new)
		t = spool_track(s, job->owner);
	if (!t) {
		spool_refuse(s, job);
		return;
	}
	t->last_ns = clock_now_ns();
	list_del(&t->age);
	list_add_tail(&s->by_age, &t->age);

	if (incoming_accepts(s, t, job, is_new)) {
		r = incoming_write(s, t, job);
		if (r < 0)
			incoming_fail(s, t, r, reason_of(r));
		else if (job->is_last)
			incoming_finish(s, t);
	}
	if (job->is_last)
		spool_untrack(s, t);
}

static void spool_work_abort(struct spool *s, struct spool_owner owner)
{
	struct incoming *t = *spool_slot(s, owner);

	if (t) {
		incoming_discard(s, t);
		spool_untrack(s, t);
	}
}

static void spool_work_adopt(struct spool *s, const struct spool_unfinished *k)
{
	struct incoming *t = *spool_slot(s, k->owner) ? NULL : spool_track(s, k->owner);
	int r;

	if (!t)
		return;
	t->last.sequence = k->sequence;
	t->last.request_id_len = MIN(k->request_id_len, (uint8_t)MSG_REQUEST_ID_MAX);
	memcpy(t->last.request_id, k->request_id, t->last.request_id_len);
	t->last_ns = clock_now_ns();
	t->next_sequence = k->next_sequence;
	list_add_tail(&s->by_age, &t->age);
	if (k->is_broken)
		return;
	r = spool_file_reopen(&t->file, s->dir_fd, k->name, k->part, k->bytes);
	if (r < 0)
		incoming_fail(s, t, r, reason_of(r));
	else
		count(&s->counters.open, 1);
}

static bool is_being_written(void *ctx, const char *name)
{
	const struct spool *s = ctx;

	LIST_FOREACH (node, &s->by_age) {
		const struct incoming *t = CONTAINER_OF(node, struct incoming, age);

		if (t->file.fd >= 0 && strcmp(t->file.part, name) == 0)
			return true;
	}
	return false;
}

static void spool_work(struct spool *s, const struct spool_job *note)
{
	switch (note->kind) {
	case JOB_CHUNK:
		spool_work_chunk(s, &note->job);
		break;
	case JOB_ABORT:
		spool_work_abort(s, note->job.owner);
		break;
	case JOB_RESUME:
		spool_work_adopt(s, note->kept);
		break;
	case JOB_CLEAN:
		/* What cannot be removed now, the next start tries. */
		(void)!spool_file_remove_parts(s->dir_fd, is_being_written, s);
		break;
	}
}

/* Ends what was silent since @before_ns. A client that lags behind a slow disk is not silent:
 * its chunks are in the queue, and this is called only when that is empty. */
static void spool_expire(struct spool *s, uint64_t before_ns, int error, const char *reason)
{
	while (!list_is_empty(&s->by_age)) {
		struct incoming *t = CONTAINER_OF(list_first(&s->by_age), struct incoming, age);

		if (t->last_ns > before_ns)
			return;
		if (t->file.fd >= 0)
			incoming_fail(s, t, error, reason);
		spool_untrack(s, t);
	}
}

/* ---- the thread ---- */

void spool_job_free(struct spool_job *note)
{
	if (note) {
		free(note->job.data);
		free(note->kept);
	}
	free(note);
}

struct spool_job *spool_job_new(void)
{
	return calloc(1, sizeof(struct spool_job));
}

/* One second at a time while there is something that may expire, else until there is work. */
static void spool_wait(struct spool *s)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec++;
	pthread_mutex_lock(&s->lock);
	/* A wake-up that is late, early or for nothing does no harm: the caller looks again. */
	if (!s->head && !s->waiting && !s->is_stopping) {
		if (s->n_transfers)
			(void)pthread_cond_timedwait(&s->wake, &s->lock, &until);
		else
			(void)pthread_cond_wait(&s->wake, &s->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

static struct spool_job *spool_take(struct spool *s)
{
	struct spool_job *note = s->head;

	atomic_store_explicit(&s->oldest_ns, note ? note->queued_ns : 0, memory_order_relaxed);
	if (!note)
		return NULL;
	s->head = note->next;
	if (!s->head)
		s->tail = &s->head;
	if (note->kind == JOB_CHUNK) {
		s->n_chunks--;
		s->n_bytes -= note->job.n;
		atomic_store_explicit(&s->counters.queued_jobs, s->n_chunks, memory_order_relaxed);
		atomic_store_explicit(&s->counters.queued_bytes, s->n_bytes, memory_order_relaxed);
	}
	return note;
}

/* Workers to be told of room: not before half is free, or they would come for each chunk. */
static uint64_t spool_take_waiting(struct spool *s)
{
	uint64_t waiting = s->waiting;

	if (s->n_chunks > SPOOL_MAX_JOBS / 2 || s->n_bytes > SPOOL_MAX_BYTES / 2)
		return 0;
	s->waiting = 0;
	return waiting;
}

static void spool_tell_room(struct spool *s, uint64_t waiting)
{
	for (unsigned i = 0; waiting; i++, waiting >>= 1)
		if (waiting & 1)
			s->ops->room(s->ctx, i);
}

static void spool_idle(struct spool *s)
{
	uint64_t now = clock_now_ns();

	if (now > SPOOL_IDLE_NS && !atomic_load_explicit(&s->is_closed, memory_order_relaxed))
		spool_expire(s, now - SPOOL_IDLE_NS, -ETIMEDOUT,
			     "the transfer was silent for too long");
	if (!s->n_transfers) {
		zip_trim(&s->zip);
		buf_fini(&s->scratch);
	}
}

static void *spool_main(void *arg)
{
	struct spool *s = arg;
	bool is_stopping = false;

	(void)pthread_setname_np(pthread_self(), "spool");
	while (!is_stopping) {
		struct spool_job *note;
		uint64_t waiting;

		pthread_mutex_lock(&s->lock);
		note = spool_take(s);
		waiting = spool_take_waiting(s);
		is_stopping = !note && s->is_stopping;
		pthread_mutex_unlock(&s->lock);

		spool_tell_room(s, waiting);
		if (note) {
			spool_work(s, note);
			spool_job_free(note);
		} else if (!is_stopping) {
			spool_idle(s);
			spool_wait(s);
		}
	}
	if (!s->is_leaving)
		spool_expire(s, UINT64_MAX, -ECANCELED, "the server stops");
	return NULL;
}

static int spool_start_thread(struct spool *s)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	r = pthread_sigmask(SIG_SETMASK, &all, &before);
	if (r != 0)
		return -r;
	r = pthread_create(&s->thread, NULL, spool_main, s);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

static int spool_init_sync(struct spool *s)
{
	pthread_condattr_t attr;
	int r = pthread_mutex_init(&s->lock, NULL);

	if (r != 0)
		return -r;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	r = pthread_cond_init(&s->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	return -r;
}

static int open_dir(const char *dir, bool keep, int *ret_fd)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	int r;

	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return -errno;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return -errno;
	r = 0;
	if (keep)
		spool_file_mark(fd);
	else
		r = spool_file_remove_parts(fd, NULL, NULL);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void spool_release(struct spool *s)
{
	fd_closep(&s->dir_fd);
	zip_fini(&s->zip);
	buf_fini(&s->scratch);
	free(s);
}

int spool_new(const char *dir, bool keep, const struct spool_ops *ops, void *ctx,
	      struct spool **ret)
{
	struct spool *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->ops = ops;
	s->ctx = ctx;
	s->dir_fd = -1;
	s->tail = &s->head;
	list_init(&s->by_age);
	/* Clients outlive a process: its numbers are not those of the one before. */
	s->next_number = clock_now_ns() / NS_PER_MS;
	r = open_dir(dir, keep, &s->dir_fd);
	if (r == 0)
		r = spool_init_sync(s);
	if (r == 0)
		r = spool_start_thread(s);
	if (r < 0) {
		spool_release(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void spool_end_thread(struct spool *s, bool is_leaving)
{
	pthread_mutex_lock(&s->lock);
	s->is_stopping = true;
	s->is_leaving = is_leaving;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	(void)pthread_join(s->thread, NULL);
}

/* As another process wants to know it. */
static struct spool_unfinished keep(const struct incoming *t)
{
	struct spool_unfinished k = {
		.owner = t->last.owner,
		.bytes = t->file.bytes,
		.next_sequence = t->next_sequence,
		.sequence = t->last.sequence,
		.request_id_len = t->last.request_id_len,
		.is_broken = t->file.fd < 0,
	};

	memcpy(k.request_id, t->last.request_id, sizeof(k.request_id));
	memcpy(k.name, t->file.name, sizeof(k.name));
	memcpy(k.part, t->file.part, sizeof(k.part));
	return k;
}

struct spool *spool_hand_over(struct spool *s,
			      void (*fn)(void *ctx, const struct spool_unfinished *k), void *ctx)
{
	if (!s)
		return NULL;
	spool_end_thread(s, true);
	while (!list_is_empty(&s->by_age)) {
		struct incoming *t = CONTAINER_OF(list_first(&s->by_age), struct incoming, age);
		const struct spool_unfinished k = keep(t);

		fn(ctx, &k);
		fd_closep(&t->file.fd);
		spool_untrack(s, t);
	}
	return spool_free(s);
}

struct spool *spool_free(struct spool *s)
{
	if (!s)
		return NULL;
	if (!s->is_stopping)
		spool_end_thread(s, false);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	spool_release(s);
	return NULL;
}

/* ---- the workers' side ---- */

static void spool_append(struct spool *s, struct spool_job *note)
{
	/* Also when the thread doesn't even take it. */
	if (!s->head && atomic_load_explicit(&s->oldest_ns, memory_order_relaxed) == 0)
		atomic_store_explicit(&s->oldest_ns, note->queued_ns, memory_order_relaxed);
	*s->tail = note;
	s->tail = &note->next;
	pthread_cond_signal(&s->wake);
}

bool spool_put_chunk(struct spool *s, struct spool_chunk *job)
{
	struct spool_job *note = spool_job_new();
	bool is_taken;

	WB_ASSERT(job->owner.worker < SPOOL_MAX_WORKERS);
	if (note) {
		note->job = *job;
		note->queued_ns = clock_now_ns();
	}
	pthread_mutex_lock(&s->lock);
	is_taken = note && !atomic_load_explicit(&s->is_closed, memory_order_relaxed) &&
		   (!s->n_chunks || (s->n_chunks < SPOOL_MAX_JOBS && job->n <= SPOOL_MAX_BYTES &&
				     s->n_bytes <= SPOOL_MAX_BYTES - job->n));
	if (is_taken) {
		s->n_chunks++;
		s->n_bytes += job->n;
		atomic_store_explicit(&s->counters.queued_jobs, s->n_chunks, memory_order_relaxed);
		atomic_store_explicit(&s->counters.queued_bytes, s->n_bytes, memory_order_relaxed);
		spool_append(s, note);
	} else if (!atomic_load_explicit(&s->is_closed, memory_order_relaxed)) {
		s->waiting |= 1ULL << job->owner.worker;
		pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->lock);

	if (is_taken) {
		job->data = NULL;
		job->n = 0;
	} else {
		free(note); /* its data is the caller's */
	}
	return is_taken;
}

void spool_abort(struct spool *s, struct spool_owner owner, struct spool_job *note)
{
	note->kind = JOB_ABORT;
	note->queued_ns = clock_now_ns();
	note->job.owner = owner;
	pthread_mutex_lock(&s->lock);
	spool_append(s, note);
	pthread_mutex_unlock(&s->lock);
}

static int spool_tell(struct spool *s, enum job_kind kind, const struct spool_unfinished *k)
{
	struct spool_job *note = spool_job_new();

	if (note && k)
		note->kept = malloc(sizeof(*k));
	if (!note || (k && !note->kept)) {
		spool_job_free(note);
		return -ENOMEM;
	}
	if (k)
		*note->kept = *k;
	note->kind = kind;
	note->queued_ns = clock_now_ns();
	pthread_mutex_lock(&s->lock);
	spool_append(s, note);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

int spool_resume(struct spool *s, const struct spool_unfinished *k)
{
	return spool_tell(s, JOB_RESUME, k);
}

int spool_clean(struct spool *s)
{
	return spool_tell(s, JOB_CLEAN, NULL);
}

uint64_t spool_wait_ns(const struct spool *s, uint64_t now_ns)
{
	uint64_t oldest_ns = atomic_load_explicit(&s->oldest_ns, memory_order_relaxed);

	return oldest_ns && now_ns > oldest_ns ? now_ns - oldest_ns : 0;
}

bool spool_is_stalled(const struct spool *s, uint64_t now_ns)
{
	return spool_wait_ns(s, now_ns) > SPOOL_STALL_NS;
}

static void spool_set_closed(struct spool *s, bool is_closed)
{
	pthread_mutex_lock(&s->lock);
	atomic_store_explicit(&s->is_closed, is_closed, memory_order_relaxed);
	pthread_mutex_unlock(&s->lock);
}

void spool_close(struct spool *s)
{
	spool_set_closed(s, true);
}

void spool_open(struct spool *s)
{
	spool_set_closed(s, false);
}

bool spool_is_idle(const struct spool *s)
{
	return atomic_load_explicit(&s->oldest_ns, memory_order_relaxed) == 0;
}

const struct spool_counters *spool_counters(const struct spool *s)
{
	return &s->counters;
}
