/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Files of the BINARY_DATA transfers, written by one thread: the only one in the daemon that may
 * block on a disk. The mutex that it shares with those that hand something over is held for list
 * operations, never over a system call on files.
 *
 * A transfer is what one connection sends with consecutive sequence numbers from 0 to is_last;
 * a connection has one at a time. It is written to a dot-named ".part" file, synced, renamed,
 * and the directory synced; only then it is reported as done. Whatever breaks it (a gap, damaged
 * data, a full disk, the end of its connection, silence) removes the partial file, is reported
 * once, and the rest of that transfer is dropped up to is_last or the next sequence 0. Partial
 * files of an earlier run are removed at the start, unless another process holds the directory.
 *
 * Final names are UTC time, client id and a counter that begins anew, and higher, in each
 * process: 20240131T120000Z-CLIENT-7. Nothing in them comes from a peer, and an existing file is
 * never replaced.
 *
 * Clients are served in turn, by what is written for them; each has a share of the queue.
 *
 * Bounds: SPOOL_MAX_JOBS and SPOOL_MAX_BYTES in the queue, SPOOL_MAX_OPEN files,
 * SPOOL_MAX_TRANSFERS tracked (broken ones included), SPOOL_IDLE_NS of silence, and what struct
 * spool_limits says. Where all places for open files are taken, the transfer that was silent
 * longest gives way to a new one, if that is SPOOL_YIELD_NS or more.
 */

#include "base/base.h"
#include "wire/msg.h"
#include "wire/zip.h"

#define SPOOL_MAX_JOBS 1024
#define SPOOL_MAX_BYTES (64u << 20)
#define SPOOL_MAX_JOBS_IN_ALL 65536   /* with those of clients that have no other in the queue */
#define SPOOL_SMALL_CHUNK (64u << 10) /* for which these find room in a full queue */
#define SPOOL_CLIENT_JOBS 256         /* in the queue, of one client */
#define SPOOL_CLIENT_BYTES (8u << 20) /* likewise; or one chunk alone */
#define SPOOL_MAX_OPEN 256
#define SPOOL_MAX_TRANSFERS 65536
#define SPOOL_MAX_WORKERS 64
#define SPOOL_IDLE_NS (120ULL * 1000000000ULL)
#define SPOOL_STALL_NS (10ULL * 1000000000ULL)
#define SPOOL_YIELD_NS (2ULL * 1000000000ULL)

/* File name without directory, NUL included. */
#define SPOOL_NAME_MAX 96

struct spool;
struct spool_job;

/* Whose transfer; opaque to the spool but for `worker`, an index below SPOOL_MAX_WORKERS. */
struct WB_VALUE spool_owner {
	uint64_t worker;
	uint64_t serial; /* of the connection, never used twice by a worker */
	/*
	 * Whence it comes: an IPv6 network of 64 bits, or 0x0000ffff00000000 and an IPv4 address
	 * below that; 0: it is not counted. The top bit is never set.
	 */
	uint64_t address;
};

/* Bounds on what is kept. 0: none. */
struct WB_VALUE spool_limits {
	uint64_t max_bytes;      /* of all files in the directory: spool_max_size */
	uint64_t max_file_bytes; /* of one: spool_max_file_size */
	uint64_t min_free;       /* of the disk [%]: spool_min_free */
	uint64_t client_files;   /* that one connection begins in a second */
	uint64_t address_files;  /* that one address begins in a second */
	uint64_t address_open;   /* that are being received of one address */
};

/* Which bound a transfer has met. */
enum spool_refusal {
	SPOOL_NOT_REFUSED,
	SPOOL_R_FILE_SIZE, /* max_file_bytes */
	SPOOL_R_SIZE,      /* max_bytes */
	SPOOL_R_FREE,      /* min_free */
	SPOOL_R_OPEN,      /* SPOOL_MAX_OPEN, SPOOL_MAX_TRANSFERS, address_open */
	SPOOL_R_RATE,      /* client_files, address_files */
	SPOOL_N_REFUSALS
};

/* A transfer that another process goes on with, or this one, should there be no other. */
struct WB_VALUE spool_unfinished {
	struct spool_owner owner;
	char name[SPOOL_NAME_MAX]; /* final, without directory */
	char part[SPOOL_NAME_MAX]; /* while it is not complete */
	uint64_t bytes;            /* of the file so far */
	uint32_t next_sequence;
	uint32_t sequence; /* of the last chunk, and whose request it was */
	uint8_t request_id[MSG_REQUEST_ID_MAX];
	uint8_t request_id_len;
	bool is_broken; /* it has no file: what still comes is dropped */
};

/* One chunk. All but `data` is copied by spool_put_chunk(). */
struct WB_VALUE spool_chunk {
	struct spool_owner owner;
	char client_id[40]; /* the server-made id, text; other than [0-9A-Za-z-] becomes '_' */
	uint8_t request_id[MSG_REQUEST_ID_MAX];
	uint8_t request_id_len;
	uint32_t sequence;
	bool is_last;
	uint64_t announced;  /* size of the whole file, by its client's word; 0: not said */
	enum zip_kind kind;  /* how data is packed; may be any number from the wire */
	size_t unpack_limit; /* most bytes that one packed chunk may hold */
	uint8_t *data;       /* from malloc; may be NULL when n is 0 */
	size_t n;
};

/* How a transfer ended. */
struct WB_VALUE spool_result {
	struct spool_owner owner;
	uint8_t request_id[MSG_REQUEST_ID_MAX]; /* of the chunk that ended it */
	uint8_t request_id_len;
	uint32_t sequence; /* of that chunk */
	int error;         /* 0 or -errno */
	enum spool_refusal refusal;
	bool is_transient;  /* nothing is wrong with the transfer: later it may be taken */
	const char *reason; /* "" or why, in words for the client; valid for ever */
	const char *name;   /* final file name, "" if failed; valid during the callback only */
	uint64_t bytes;     /* size of the file, 0 if failed */
};

/* Called on the spool thread; must not block and must not call into the spool. */
struct WB_FROZEN spool_ops {
	/* A transfer is on disk, or has failed. Not called for spool_abort(). */
	void (*done)(void *ctx, const struct spool_result *result);
	/* There is room again, after @worker has met a full queue. */
	void (*room)(void *ctx, unsigned worker);
};

/* Totals since the start; any thread may read them. */
struct WB_SHARED spool_counters {
	_Atomic uint64_t files;  /* finished */
	_Atomic uint64_t bytes;  /* in finished files */
	_Atomic uint64_t errors; /* transfers that ended without a file, aborted ones included */
	_Atomic uint64_t queued_jobs;  /* now */
	_Atomic uint64_t queued_bytes; /* now */
	_Atomic uint64_t open;         /* files being written now */
};

/**
 * spool_new() - open the directory and start the thread
 * @dir:  created if it does not exist (its parent must)
 * @keeps_parts: partial files of an earlier run stay until spool_clean()
 * @ops:  both functions set; must stay valid until spool_free() returns
 *
 * Return: 0 | -errno: the directory cannot be made, opened or written to; no thread or memory.
 * Thread: main, before the workers start. The spool thread blocks all signals.
 */
int spool_new(const char *dir, bool keeps_parts, const struct spool_ops *ops, void *ctx,
	      struct spool **ret) WB_NODISCARD;

/* From the next job on; before, there are none. Any thread. */
WB_ANY_THREAD void spool_set_limits(struct spool *s, const struct spool_limits *limits);

/**
 * spool_free() - work off the queue, remove what is not complete, stop the thread
 *
 * Callbacks may still come until it returns. Transfers that are open at the end are reported as
 * failed (-ECANCELED).
 *
 * Return: NULL. Accepts NULL.
 * Thread: main, when no worker calls the spool any more. May block on the disk.
 */
struct spool *spool_free(struct spool *s);

/**
 * spool_hand_over() - as spool_free(), but what is not complete stays for another process
 * @fn:  called for each such transfer
 *
 * Return: NULL. Accepts NULL.
 * Thread: main.
 */
struct spool *spool_hand_over(struct spool *s,
			      void (*fn)(void *ctx, const struct spool_unfinished *u), void *ctx);

/**
 * spool_resume() - go on with a transfer that was left
 * @u:   with the owner that it has now
 *
 * If its file is not as it was left, that is reported like anything else that breaks it.
 *
 * Return: 0 | -ENOMEM.
 * Thread: main, before the workers start.
 */
int spool_resume(struct spool *s, const struct spool_unfinished *u) WB_NODISCARD;

/* All that were left are resumed: other partial files go. Return: 0 | -ENOMEM. Thread: main. */
int spool_clean(struct spool *s) WB_NODISCARD;

/**
 * spool_put_chunk() - hand over the next chunk of a transfer
 *
 * Chunks of one connection are worked off in the order of the calls.
 *
 * One chunk larger than SPOOL_MAX_BYTES is taken when the queue is empty.
 *
 * Return: true; or false when the queue is full, or its client's share of it (or memory is):
 *         ops.room() tells when to try again; or false after spool_close().
 * Owns:   on true chunk->data is the spool's, chunk->data and chunk->n are cleared; on false
 *         everything stays the caller's.
 * Thread: any.
 */
WB_ANY_THREAD bool spool_put_chunk(struct spool *s, struct spool_chunk *chunk) WB_NODISCARD;

/**
 * spool_abort() - the connection has ended: drop its transfer, if it has one
 *
 * @job: of spool_job_new(); the spool's from here on
 *
 * To be called for connections that have handed over a chunk, so that these jobs are bounded
 * by the transfers. Never refused for a full queue, and not for want of memory: that is what the
 * job is made for in time. Follows the chunks that were handed over before it.
 *
 * Thread: any.
 */
WB_ANY_THREAD void spool_abort(struct spool *s, struct spool_owner owner, struct spool_job *job);

/* NULL: out of memory. */
WB_ANY_THREAD struct spool_job *spool_job_new(void);
WB_ANY_THREAD void spool_job_free(struct spool_job *job);

/*
 * How long the disk has been at the job in hand, or has left the queue alone; 0: there is none. A
 * queue that is long because the disk is busy makes it no longer. Any thread.
 */
WB_ANY_THREAD uint64_t spool_wait_ns(const struct spool *s, uint64_t now_ns);

/* That is more than SPOOL_STALL_NS. Any thread. */
WB_ANY_THREAD bool spool_is_stalled(const struct spool *s, uint64_t now_ns);

/*
 * Takes no more chunks, from now on: whoever has one keeps it. Transfers that end leave their
 * partial files to spool_clean(), so that nothing waits for a disk any more. Any thread.
 */
WB_ANY_THREAD void spool_close(struct spool *s);
/* Takes them again. ops.room() isn't called for it. Any thread. */
WB_ANY_THREAD void spool_open(struct spool *s);

/* Nothing is queued or in hand. Any thread. */
WB_ANY_THREAD bool spool_is_idle(const struct spool *s);

/* Valid until spool_free(). */
WB_ANY_THREAD const struct spool_counters *spool_counters(const struct spool *s);
