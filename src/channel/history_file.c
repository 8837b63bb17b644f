/* SPDX-License-Identifier: MIT */
#include "channel/history_file.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/text.h"
#include "channel/directory.h"
#include "wire/msg.h"

#define VERSION 2

/* ---------------------------------------------------------------------------- the file */

static int file_create(struct history_file *f, int fd, unsigned shelves)
{
	int r = shm_heap_create(&f->heap, fd, shelves);

	if (r)
		return r;
	f->root = shm_heap_root(&f->heap);
	f->root->version = VERSION;
	f->has_past = false;
	return 0;
}

int history_file_init(struct history_file *f, int fd, unsigned shelves)
{
	int r;

	f->own_fd = -1;
	if (fd < 0) {
		fd = f->own_fd = memfd_create("wsbind-history", MFD_CLOEXEC);
		if (fd < 0)
			return -errno;
	}
	/* Of another layout it is as good as empty. */
	r = shm_heap_open(&f->heap, fd, shelves);
	if (r == 0) {
		f->root = shm_heap_root(&f->heap);
		f->has_past = true;
		if (f->root->version == VERSION)
			return 0;
		shm_heap_fini(&f->heap);
	}
	r = file_create(f, fd, shelves);
	if (r)
		fd_closep(&f->own_fd);
	return r;
}

void history_file_fini(struct history_file *f)
{
	shm_heap_fini(&f->heap);
	fd_closep(&f->own_fd);
	f->root = NULL;
}

int history_file_forget(struct history_file *f)
{
	int fd = f->heap.fd;
	unsigned shelves = f->heap.n_shelves;

	shm_heap_fini(&f->heap);
	return file_create(f, fd, shelves);
}

/* ----------------------------------------------------------------------------- secrets */

static uint32_t keys_crc(const struct history_root *root)
{
	/* A process that dies while it writes them has served nobody yet. */
	uint32_t crc = msg_crc32(root->digest_key, sizeof(root->digest_key));

	crc = msg_crc32_on(crc, &root->has_resume_key, sizeof(root->has_resume_key));
	return msg_crc32_on(crc, root->resume_key, sizeof(root->resume_key));
}

bool history_file_keys(const struct history_file *f, struct siphash_key *ret_digest,
		       uint8_t ret_resume[HISTORY_RESUME_KEY_BYTES])
{
	const struct history_root *root = f->root;

	if (!f->has_past || root->keys_crc != keys_crc(root))
		return false;
	memcpy(ret_digest->half, root->digest_key, sizeof(root->digest_key));
	if (root->has_resume_key)
		memcpy(ret_resume, root->resume_key, sizeof(root->resume_key));
	return root->has_resume_key;
}

void history_file_set_keys(struct history_file *f, const struct siphash_key *digest,
			   const uint8_t *resume)
{
	struct history_root *root = f->root;

	memcpy(root->digest_key, digest->half, sizeof(root->digest_key));
	root->has_resume_key = resume != NULL;
	memset(root->resume_key, 0, sizeof(root->resume_key));
	if (resume)
		memcpy(root->resume_key, resume, sizeof(root->resume_key));
	root->keys_crc = keys_crc(root);
}

/* ------------------------------------------------------------------------------- heads */

/* Never 0, which is what a copy has while it is written. */
static uint64_t note_check(const struct history_head *head, const struct history_note *n)
{
	/* The finalizer of splitmix64, over each word in turn: it tells accidents, no more. */
	const uint64_t word[] = {head->epoch, n->newest, n->earliest, n->reserved};
	uint64_t x = 0;

	for (size_t i = 0; i < ARRAY_LEN(word); i++) {
		x = (x ^ word[i]) + 0x9e3779b97f4a7c15;
		x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
		x = (x ^ x >> 27) * 0x94d049bb133111eb;
		x ^= x >> 31;
	}
	return x | 1;
}

static uint64_t head_mark(const struct history_head *head)
{
	uint32_t crc = msg_crc32(&head->epoch, sizeof(head->epoch));

	crc = msg_crc32_on(crc, &head->name_len, sizeof(head->name_len));
	return (uint64_t)msg_crc32_on(crc, head->name, head->name_len) << 32 | HISTORY_HEAD_MARK;
}

void history_head_note(struct history_head *head, const struct history_note *note)
{
	unsigned turn = head->turn & 1;

	/* In this order as they are executed: a process dies between two of these. */
	head->copy[turn].check = 0;
	atomic_signal_fence(memory_order_seq_cst);
	head->copy[turn].note = *note;
	atomic_signal_fence(memory_order_seq_cst);
	head->copy[turn].check = note_check(head, note);
	atomic_signal_fence(memory_order_seq_cst);
	head->turn = !turn;
}

struct history_head *history_head_new(struct history_file *f, uint64_t epoch, const char *name,
				      size_t n, const struct history_note *note)
{
	struct shm_slot *slot = shm_heap_alloc(&f->heap, sizeof(struct history_head) + n);
	struct history_head *head;

	if (!slot)
		return NULL;
	head = CONTAINER_OF(slot, struct history_head, slot);
	head->epoch = epoch;
	memset(head->copy, 0, sizeof(head->copy));
	head->turn = 0;
	head->name_len = (uint8_t)n;
	memcpy(head->name, name, n);
	history_head_note(head, note);
	atomic_store_explicit(&slot->mark, head_mark(head), memory_order_release);
	return head;
}

void history_head_free(struct history_file *f, struct history_head *head)
{
	if (head)
		shm_heap_free(&f->heap, &head->slot);
}

/* Of two copies that are whole the younger one: none of its numbers ever falls. */
static bool head_read(const struct history_head *head, struct history_note *ret)
{
	bool has_any = false;

	for (unsigned i = 0; i < ARRAY_LEN(head->copy); i++) {
		const struct history_note *n = &head->copy[i].note;

		if (head->copy[i].check != note_check(head, n) || n->reserved >= UINT64_MAX / 2 ||
		    n->newest > n->reserved || n->earliest > n->reserved)
			continue;
		if (!has_any || (n->newest >= ret->newest && n->earliest >= ret->earliest &&
				 n->reserved >= ret->reserved))
			*ret = *n;
		has_any = true;
	}
	return has_any;
}

struct history_head *history_head_find(const struct history_file *f, struct shm_slot *slot,
				       struct history_note *ret)
{
	struct history_head *head = CONTAINER_OF(slot, struct history_head, slot);
	uint64_t mark = atomic_load_explicit(&slot->mark, memory_order_relaxed);

	size_t room = shm_heap_room(&f->heap, slot);

	/* In this order: nothing beyond the slot is read. */
	if ((uint32_t)mark != HISTORY_HEAD_MARK || room < sizeof(*head) ||
	    room < sizeof(*head) + head->name_len || mark != head_mark(head) || head->epoch == 0)
		return NULL;
	static_assert(DIRECTORY_NAME_MAX == UINT8_MAX, "any length is a name's");
	if (memchr(head->name, 0, head->name_len) || !utf8_valid(head->name, head->name_len))
		return NULL;
	return head_read(head, ret) ? head : NULL;
}
