/* SPDX-License-Identifier: MIT */
#include "client/client_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "client/system.h"

#define PROGRESS_NS (200 * NS_PER_MS)
#define LEFT_SHOWN 8 /* names of those that left meanwhile */
#define ID_PREFIX 12 /* bytes of a request_id before the chunk's number */

/* Outlives a connection; after another one all begins anew, since the server knows no half file. */
struct client_file {
	int fd;
	const char *path; /* borrowed */
	uint64_t bytes;
	uint32_t n_chunks; /* at least one */
	uint32_t next;     /* chunk to send */
	uint32_t taken;    /* chunks that the server has, as far as we know: all below this */
	bool is_done;
	bool has_progress; /* a progress line stands on the terminal */
	uint64_t started_ns, shown_ns;
	unsigned n_left; /* members that went while it was being sent */
	char left[LEFT_SHOWN][40];
	char name[NAME_MAX + 1]; /* of the file, in UTF-8 */
	uint8_t id[16];          /* request_id of the chunk sent last */
	uint8_t chunk[CLIENT_CHUNK];
};

struct client_file *client_file_free(struct client_file *f)
{
	if (f)
		fd_closep(&f->fd);
	free(f);
	return NULL;
}

/* What receivers are told that it is called. */
static void client_file_set_name(struct client_file *f, const char *path)
{
	const char *slash = strrchr(path, '/');

	snprintf(f->name, sizeof(f->name), "%s", slash ? slash + 1 : path);
	/* A name of a file is bytes; in a message it has to be text. */
	if (utf8_valid(f->name, strlen(f->name)))
		return;
	for (char *p = f->name; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '_';
}

int client_file_open(const char *path, struct client_file **ret)
{
	/* Without O_NONBLOCK a FIFO that nobody writes to would hold us here for ever. */
	WB_CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct client_file *f;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size / CLIENT_CHUNK >= UINT32_MAX)
		return -EFBIG;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->fd = TAKE_FD(fd);
	f->path = path;
	client_file_set_name(f, path);
	f->bytes = (uint64_t)st.st_size;
	/* An empty file is one empty chunk: something has to say that it is the last. */
	f->n_chunks = (uint32_t)MAX((f->bytes + CLIENT_CHUNK - 1) / CLIENT_CHUNK, (uint64_t)1);
	*ret = f;
	return 0;
}

void client_file_start(struct client_file *f, struct session *s)
{
	f->next = 0;
	f->taken = 0;
	f->n_left = 0;
	f->started_ns = clock_now_ns();
	/*
	 * New for each attempt: answers to chunks of the one before are not taken for this one's.
	 */
	system_random_bytes(f->id, ID_PREFIX);
	f->id[6] = (f->id[6] & 0x0f) | 0x40; /* a version-4 UUID but for its last four bytes */
	f->id[8] = (f->id[8] & 0x3f) | 0x80;
	client_file_send(f, s);
}

/* An answer names the chunk by these four bytes, so that nothing has to be looked up. */
static void client_file_set_id(struct client_file *f, uint32_t chunk)
{
	for (size_t i = 0; i < 4; i++)
		f->id[ID_PREFIX + i] = (uint8_t)(chunk >> 8 * (3 - i));
}

/* The chunk that an answer is about, or false when it is about something else. */
static bool client_file_find_chunk(const struct client_file *f,
				   const Websocket__WebSocketMessage *m, uint32_t *ret)
{
	const uint8_t *id = m->request_id.data;

	if (m->request_id.len != sizeof(f->id) || memcmp(id, f->id, ID_PREFIX) != 0)
		return false;
	*ret = (uint32_t)id[12] << 24 | (uint32_t)id[13] << 16 | (uint32_t)id[14] << 8 | id[15];
	return true;
}

/* Reads a chunk whole. Return: 0 | -errno | -ENODATA: the file is shorter than it was. */
static int client_file_read(struct client_file *f, uint32_t chunk, size_t *ret_n)
{
	uint64_t at = (uint64_t)chunk * CLIENT_CHUNK;
	size_t want = (size_t)MIN(f->bytes - at, (uint64_t)CLIENT_CHUNK), have = 0;

	while (have < want) {
		ssize_t got = pread(f->fd, f->chunk + have, want - have, (off_t)(at + have));

		if (got < 0 && errno != EINTR)
			return -errno;
		if (got == 0)
			return -ENODATA;
		have += got > 0 ? (size_t)got : 0;
	}
	*ret_n = want;
	return 0;
}

static void client_file_show_progress(struct client_file *f, bool is_end)
{
	uint64_t now = clock_now_ns();
	uint64_t done = MIN((uint64_t)f->taken * CLIENT_CHUNK, f->bytes);
	double seconds = (double)(now - f->started_ns) / NS_PER_S;

	/* The end is always shown: it leaves the line that the next output begins below. */
	if (!isatty(STDERR_FILENO) || (!is_end && now - f->shown_ns < PROGRESS_NS))
		return;
	f->shown_ns = now;
	fprintf(stderr, "\r%3.0f %%  %.1f of %.1f MB  %.1f MB/s \033[K%s",
		f->bytes ? 100.0 * (double)done / (double)f->bytes : 100.0, (double)done / 1e6,
		(double)f->bytes / 1e6, seconds > 0 ? (double)done / 1e6 / seconds : 0.0,
		is_end ? "\n" : "");
	f->has_progress = !is_end;
}

static void client_file_fail(struct client_file *f, struct session *s, const char *why)
{
	if (f->has_progress)
		client_file_show_progress(f, true);
	session_fail(s, "%s: %s", f->path, why);
}

/* Sends the next chunk. False when it has to wait, or all is over. */
static bool client_file_send_chunk(struct client_file *f, struct session *s)
{
	struct msg_builder b;
	size_t n = 0;
	int r = client_file_read(f, f->next, &n);

	if (r < 0) {
		client_file_fail(f, s, r == -ENODATA ? "the file became shorter" : strerror(-r));
		return false;
	}
	msg_init_binary(&b, f->chunk, n, f->next, f->next + 1 == f->n_chunks,
			WEBSOCKET__COMPRESSION_TYPE__NONE);
	/* The id of the first chunk tells the transfer from others; its beginning is random. */
	msg_set_file(&b, f->next == 0 ? f->name : NULL, f->next == 0 ? f->bytes : 0, f->id,
		     ID_PREFIX);
	client_file_set_id(f, f->next);
	msg_set_request_id(&b, f->id, sizeof(f->id));
	r = endpoint_send_msg(&s->endpoint, &b);
	if (r < 0)
		client_file_fail(f, s, strerror(-r));
	if (r != 0)
		return false; /* writable() or another connection goes on */
	f->next++;
	return true;
}

void client_file_send(struct client_file *f, struct session *s)
{
	while (f->next < f->n_chunks && f->next - f->taken < CLIENT_WINDOW &&
	       client_file_send_chunk(f, s)) {
	}
}

static void client_file_advance(struct client_file *f, struct session *s, uint32_t taken)
{
	/* Answers come twice for a chunk, and late ones are of the connection before. */
	if (taken <= f->taken || taken > f->next)
		return;
	f->taken = taken;
	client_file_show_progress(f, false);
	client_file_send(f, s);
}

void client_file_note_left(struct client_file *f, const char *client_id)
{
	if (f->is_done)
		return;
	if (f->n_left < LEFT_SHOWN)
		text_escape(f->left[f->n_left], sizeof(f->left[0]), client_id, strlen(client_id));
	f->n_left++;
}

/* The server tells who goes, and not why: who read too slowly is among them. */
static void client_file_show_left(const struct client_file *f)
{
	if (f->n_left == 0)
		return;
	printf("%s: %u member%s left the channel meanwhile, perhaps without all of it:", f->path,
	       f->n_left, f->n_left == 1 ? "" : "s");
	for (unsigned i = 0; i < MIN(f->n_left, (unsigned)LEFT_SHOWN); i++)
		printf(" %s", f->left[i]);
	puts(f->n_left > LEFT_SHOWN ? " ..." : "");
}

static void client_file_finish(struct client_file *f, struct session *s)
{
	double seconds = (double)(clock_now_ns() - f->started_ns) / NS_PER_S;

	/* Before session_stop(), so that the answers which still come find nothing to do. */
	f->taken = f->n_chunks;
	f->is_done = true;
	if (f->has_progress)
		client_file_show_progress(f, true);
	printf("%s: %" PRIu64 " bytes in %.3f s, %.1f MB/s\n", f->path, f->bytes, seconds,
	       seconds > 0 ? (double)f->bytes / 1e6 / seconds : 0.0);
	client_file_show_left(f);
	session_stop(s);
}

void client_file_take_answer(struct client_file *f, struct session *s,
			     const Websocket__WebSocketMessage *m)
{
	char reason[512], text[640];
	uint32_t chunk;

	if (f->is_done || !client_file_find_chunk(f, m, &chunk))
		return;
	if (m->control->type == WEBSOCKET__CONTROL_TYPE__ERROR) {
		text_escape(reason, sizeof(reason), m->control->reason, strlen(m->control->reason));
		snprintf(text, sizeof(text), "the server refuses chunk %" PRIu32 ": %s", chunk,
			 reason[0] ? reason : "no reason given");
		client_file_fail(f, s, text);
		return;
	}
	/* An answer to the last chunk that came before it was sent is one to another attempt. */
	if (chunk + 1 == f->n_chunks && f->next == f->n_chunks)
		client_file_finish(f, s);
	else
		client_file_advance(f, s, chunk + 1);
}

bool client_file_is_done(const struct client_file *f)
{
	return f->is_done;
}
