/* SPDX-License-Identifier: MIT */
#include "spool/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "spool/spool_file.h"
#include "spool/spool_queue.h"
#include "spool/spool_transfer.h"

struct spool {
	const struct spool_ops *ops;
	void *ctx;
	pthread_t thread;

	pthread_mutex_t lock; /* guards the next group */
	pthread_cond_t wake;
	struct spool_queue queue;
	struct spool_limits limits;
	uint64_t waiting; /* bit per worker that met a full queue */
	uint64_t refused; /* of whose clients one has room again in its line */
	bool is_stopping;
	bool is_leaving; /* what is not complete stays */

	_Atomic bool is_closed;   /* takes no chunks; written under the lock */
	_Atomic uint64_t busy_ns; /* since when the job in hand is, or one could be; or 0 */
	struct spool_counters counters;

	struct spool_transfers transfers; /* the spool thread's own */
};

static_assert(SPOOL_MAX_WORKERS <= 64, "a set of workers is an uint64_t");

void spool_job_free(struct spool_job *job)
{
	if (job) {
		free(job->chunk.data);
		free(job->unfinished);
	}
	free(job);
}

struct spool_job *spool_job_new(void)
{
	return calloc(1, sizeof(struct spool_job));
}

/* ---------------------------------------------------------------------- the thread */

/*
 * Takes one job after the other, each to its end, and tells the workers what became of it. Only
 * the queue is shared: the transfers are the thread's until it has been joined.
 */

static void spool_work(struct spool *s, const struct spool_job *job)
{
	switch (job->kind) {
	case SPOOL_JOB_CHUNK:
		spool_transfers_take_chunk(&s->transfers, &job->chunk);
		break;
	case SPOOL_JOB_ABORT:
		/* In its place in the queue: behind the chunks that came before the end. */
		spool_transfers_abort(&s->transfers, job->chunk.owner);
		break;
	case SPOOL_JOB_RESUME:
		spool_transfers_resume(&s->transfers, job->unfinished);
		break;
	case SPOOL_JOB_CLEAN:
		spool_transfers_clean(&s->transfers);
		break;
	}
}

/* One second at a time while there is something that may expire, else until there is work. */
static void spool_wait(struct spool *s)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec++;
	pthread_mutex_lock(&s->lock);
	/* A wake-up that is late, early or for nothing does no harm: the caller looks again. */
	if (spool_queue_is_empty(&s->queue) && !s->waiting && !s->is_stopping) {
		if (s->transfers.n > 0)
			(void)pthread_cond_timedwait(&s->wake, &s->lock, &until);
		else
			(void)pthread_cond_wait(&s->wake, &s->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

/* What is in the queue, for those that look from outside; under the lock. */
static void publish_queue(struct spool *s)
{
	atomic_store_explicit(&s->counters.queued_jobs, s->queue.n_chunks, memory_order_relaxed);
	atomic_store_explicit(&s->counters.queued_bytes, s->queue.n_bytes, memory_order_relaxed);
}

/* The next job, or NULL; under the lock. */
static struct spool_job *spool_take(struct spool *s)
{
	bool has_room;
	struct spool_job *job = spool_queue_take(&s->queue, &has_room);

	/*
	 * The time of the job in hand runs until the next one is asked for: so a disk that does
	 * not answer shows, and nobody takes a spool for idle whose last write is under way. How
	 * long it waited before says how much there was to do, and nothing of the disk.
	 */
	atomic_store_explicit(&s->busy_ns, job ? clock_now_ns() : 0, memory_order_relaxed);
	s->transfers.meter.limits = s->limits;
	if (!job)
		return NULL;
	if (has_room)
		s->refused |= 1ULL << job->chunk.owner.worker;
	publish_queue(s);
	return job;
}

/*
 * Workers to be told of room: that of a client in its line, or of all. Not before half is free,
 * or they would come for each chunk.
 */
static uint64_t spool_take_waiting(struct spool *s)
{
	uint64_t waiting = s->refused;

	s->refused = 0;
	if (spool_queue_is_half_free(&s->queue)) {
		waiting |= s->waiting;
		s->waiting = 0;
	}
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

	/* While closed the clients cannot send: their silence is not theirs. */
	if (now > SPOOL_IDLE_NS && !atomic_load_explicit(&s->is_closed, memory_order_relaxed))
		spool_transfers_expire(&s->transfers, now - SPOOL_IDLE_NS, -ETIMEDOUT,
				       "the transfer was silent for too long");
	spool_transfers_trim(&s->transfers);
}

static void *spool_main(void *arg)
{
	struct spool *s = arg;
	bool is_stopping = false;

	(void)pthread_setname_np(pthread_self(), "spool");
	while (!is_stopping) {
		struct spool_job *job;
		uint64_t waiting;

		/*
		 * The lock is held for this only. It ends when it is told to and the queue is
		 * empty, in one look: what was handed over is worked off, and nothing comes after.
		 */
		pthread_mutex_lock(&s->lock);
		job = spool_take(s);
		waiting = spool_take_waiting(s);
		is_stopping = !job && s->is_stopping;
		pthread_mutex_unlock(&s->lock);

		/* Before the disk is waited for: workers fill the queue meanwhile. */
		spool_tell_room(s, waiting);
		if (job) {
			spool_work(s, job);
			spool_job_free(job);
		} else if (!is_stopping) {
			spool_idle(s);
			spool_wait(s);
		}
	}
	if (!s->is_leaving)
		spool_transfers_expire(&s->transfers, UINT64_MAX, -ECANCELED, "the server stops");
	return NULL;
}

/* ---------------------------------------------------------------- beginning and end */

static int spool_start_thread(struct spool *s)
{
	sigset_t all, before;
	int r;

	/* A thread inherits the mask of its maker, and signals are main's. */
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

static int open_dir(const char *dir, bool keeps_parts, int *ret_fd)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	int r = 0;

	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return -errno;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return -errno;
	/* Marked in either case, so that another process removes nothing of this one's. */
	if (keeps_parts)
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
	spool_transfers_fini(&s->transfers);
	free(s);
}

int spool_new(const char *dir, bool keeps_parts, const struct spool_ops *ops, void *ctx,
	      struct spool **ret)
{
	struct spool *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->ops = ops;
	s->ctx = ctx;
	spool_queue_init(&s->queue);
	s->transfers.ops = ops;
	s->transfers.ctx = ctx;
	s->transfers.counters = &s->counters;
	s->transfers.is_closed = &s->is_closed;
	s->transfers.dir_fd = -1;
	spool_transfers_init(&s->transfers);
	r = open_dir(dir, keeps_parts, &s->transfers.dir_fd);
	s->transfers.meter.dir_fd = s->transfers.dir_fd;
	if (r == 0)
		r = spool_init_sync(s);
	/* The thread is last: from there on its part of the struct is not ours any more. */
	if (r == 0)
		r = spool_start_thread(s);
	if (r < 0) {
		spool_release(s);
		return r;
	}
	*ret = s;
	return 0;
}

void spool_set_limits(struct spool *s, const struct spool_limits *limits)
{
	pthread_mutex_lock(&s->lock);
	s->limits = *limits;
	pthread_mutex_unlock(&s->lock);
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

struct spool *spool_hand_over(struct spool *s,
			      void (*fn)(void *ctx, const struct spool_unfinished *u), void *ctx)
{
	struct spool_unfinished u;

	if (!s)
		return NULL;
	/* The queue is worked off first. What the thread had is the caller's once it was joined. */
	spool_end_thread(s, true);
	while (spool_transfers_take_out(&s->transfers, &u))
		fn(ctx, &u);
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

/* ---------------------------------------------------------------- the workers' side */

/* Under the lock. */
static void spool_append(struct spool *s, struct spool_job *job)
{
	/* A clock that runs from here, also when the thread doesn't even take it. */
	if (spool_queue_is_empty(&s->queue) && spool_is_idle(s))
		atomic_store_explicit(&s->busy_ns, clock_now_ns(), memory_order_relaxed);
	spool_queue_put(&s->queue, job);
	publish_queue(s);
	pthread_cond_signal(&s->wake);
}

bool spool_put_chunk(struct spool *s, struct spool_chunk *chunk)
{
	struct spool_job *job = spool_job_new();
	bool is_closed, is_taken;

	WB_ASSERT(chunk->owner.worker < SPOOL_MAX_WORKERS);
	if (job)
		job->chunk = *chunk;
	pthread_mutex_lock(&s->lock);
	is_closed = atomic_load_explicit(&s->is_closed, memory_order_relaxed);
	is_taken = job && !is_closed && spool_queue_has_room(&s->queue, chunk->owner, chunk->n);
	if (is_taken) {
		spool_append(s, job);
	} else if (!is_closed) {
		/* Also where it was memory that failed: then there may be room at once. */
		s->waiting |= 1ULL << chunk->owner.worker;
		pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->lock);

	if (is_taken) {
		chunk->data = NULL;
		chunk->n = 0;
	} else {
		free(job); /* its data is the caller's */
	}
	return is_taken;
}

/* Any job but a chunk: these are never refused, and need no room. */
static void spool_put(struct spool *s, enum spool_job_kind kind, struct spool_job *job)
{
	job->kind = kind;
	pthread_mutex_lock(&s->lock);
	spool_append(s, job);
	pthread_mutex_unlock(&s->lock);
}

void spool_abort(struct spool *s, struct spool_owner owner, struct spool_job *job)
{
	job->chunk.owner = owner;
	spool_put(s, SPOOL_JOB_ABORT, job);
}

int spool_resume(struct spool *s, const struct spool_unfinished *u)
{
	struct spool_job *job = spool_job_new();

	if (job)
		job->unfinished = malloc(sizeof(*u));
	if (!job || !job->unfinished) {
		spool_job_free(job);
		return -ENOMEM;
	}
	*job->unfinished = *u;
	job->chunk.owner = u->owner;
	spool_put(s, SPOOL_JOB_RESUME, job);
	return 0;
}

int spool_clean(struct spool *s)
{
	struct spool_job *job = spool_job_new();

	if (!job)
		return -ENOMEM;
	/* Nobody's line, behind all that were put in before: so what they resume is known then. */
	job->chunk.owner = (struct spool_owner){.serial = UINT64_MAX};
	spool_put(s, SPOOL_JOB_CLEAN, job);
	return 0;
}

/* ------------------------------------------------------------------------- the state */

uint64_t spool_wait_ns(const struct spool *s, uint64_t now_ns)
{
	uint64_t busy_ns = atomic_load_explicit(&s->busy_ns, memory_order_relaxed);

	return busy_ns && now_ns > busy_ns ? now_ns - busy_ns : 0;
}

bool spool_is_stalled(const struct spool *s, uint64_t now_ns)
{
	return spool_wait_ns(s, now_ns) > SPOOL_STALL_NS;
}

static void spool_set_closed(struct spool *s, bool is_closed)
{
	/* Under the lock: who puts a chunk in sees either state, and no chunk comes after. */
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
	return atomic_load_explicit(&s->busy_ns, memory_order_relaxed) == 0;
}

const struct spool_counters *spool_counters(const struct spool *s)
{
	return &s->counters;
}
