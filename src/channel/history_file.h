/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The file in memory in which histories lie, and what stands in it beside messages: its root, and
 * for each channel a head. It outlives its process. One that hands over says so in the root; what
 * its successor finds is as it was left. Where nothing is said the other one died, and all is
 * looked through: see channel/history_restore.
 *
 * A head has two copies of what changes, each with a checksum, written in turn: of a process that
 * dies while it writes one the other is whole. What it says is written before anybody sees a
 * message that it speaks of. Numbers are given out up to `reserved`, so that the next process
 * begins behind all that were ever seen, those of notices and relayed texts among them.
 */

#include "base/base.h"
#include "containers/shm_heap.h"
#include "containers/siphash.h"

#define HISTORY_HEAD_MARK 3   /* as FRAME_KEPT_MARK */
#define HISTORY_RESERVED 1024 /* numbers that are noted at once */
#define HISTORY_RESUME_KEY_BYTES 32

/* What changes of a channel's place. */
struct WB_VALUE history_note {
	uint64_t newest;   /* number of the newest message that it kept; 0: none yet */
	uint64_t earliest; /* position behind which all is kept */
	uint64_t reserved; /* no number above was given to anything */
};

/* A channel's place, in a slot. */
struct WB_SHARED history_head {
	struct shm_slot slot;
	uint64_t epoch;
	struct {
		struct history_note note;
		uint64_t check;
	} copy[2];
	uint8_t turn; /* that is written next */
	uint8_t name_len;
	char name[];
};

struct WB_SHARED history_root {
	uint32_t version;
	uint32_t crashes;  /* of processes soon after they had taken it over, one after another */
	uint64_t taken_ns; /* CLOCK_MONOTONIC of the last time */
	uint64_t nonce;    /* what a hand-over is known by; 0: somebody serves, or died */
	uint64_t digest_key[2];
	uint32_t has_resume_key; /* 0: an administrator's file has it, and nobody else */
	uint8_t resume_key[HISTORY_RESUME_KEY_BYTES];
	uint32_t keys_crc;
};

static_assert(sizeof(struct history_root) <= SHM_ROOT_BYTES, "there is room for it");

struct WB_SHARED history_file {
	struct shm_heap heap;
	struct history_root *root;
	int own_fd WB_FROZEN; /* nobody gave one; -1: it is somebody else's */
	bool has_past;        /* somebody else's, and nobody has decided what becomes of it */
};

/**
 * history_file_init() - open it, or make it
 * @f:       all-zero
 * @fd:      borrowed; -1: one of its own. What is no heap becomes an empty one
 * @shelves: as shm_heap_create()
 *
 * Return:   0 | -errno.
 */
int history_file_init(struct history_file *f, int fd, unsigned shelves) WB_NODISCARD;
void history_file_fini(struct history_file *f);

/* Nothing is in it any more. No slot is anybody's. Return: 0 | -errno. */
int history_file_forget(struct history_file *f) WB_NODISCARD;

/*
 * Secrets that outlive a process with it. @ret_digest is changed if there is one that is whole.
 * Return: whether @ret_resume is one, too.
 */
bool history_file_keys(const struct history_file *f, struct siphash_key *ret_digest,
		       uint8_t ret_resume[HISTORY_RESUME_KEY_BYTES]);

/* @resume: HISTORY_RESUME_KEY_BYTES, or NULL: it isn't one that was drawn. */
void history_file_set_keys(struct history_file *f, const struct siphash_key *digest,
			   const uint8_t *resume);

/* Return: NULL: there are no pages. Thread: any. */
struct history_head *history_head_new(struct history_file *f, uint64_t epoch, const char *name,
				      size_t n, const struct history_note *note) WB_NODISCARD;

/* It is nobody's place any more. NULL is fine. */
void history_head_free(struct history_file *f, struct history_head *head);

/* Thread: one at a time. Cost: some ns. */
void history_head_note(struct history_head *head, const struct history_note *note);

/* What lies in a slot, if that is a head. NULL: none that is whole. */
struct history_head *history_head_find(const struct history_file *f, struct shm_slot *slot,
				       struct history_note *ret);
