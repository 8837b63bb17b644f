/* SPDX-License-Identifier: MIT */
#include "client/client_receive.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/system.h"
#include "containers/buf.h"
#include "containers/list.h"
#include "wire/zip.h"

#define ID_MAX 64        /* bytes of a transfer's id that are told apart */
#define NAME_TRIES 10000 /* numbers that are put into a name */
#define UNPACK_MAX ((size_t)64 << 20)
#define PART_NAME_MAX 32

struct incoming_file {
	struct list node; /* in client_receive.open */
	uint8_t id[ID_MAX];
	size_t id_len; /* 0: it has none */
	char name[RECEIVE_NAME_MAX + 1];
	char part[PART_NAME_MAX];
	int fd;
	uint64_t announced; /* 0: not said */
	uint64_t bytes;
	uint32_t next_sequence;
};

struct client_receive {
	int dir_fd;
	uint64_t max_bytes;
	receive_end_fn *fn;
	void *ctx;
	struct list open; /* silent longest first */
	size_t n;
	struct zip zip;
	struct buf scratch; /* what a chunk unpacks to */
};

/* ------------------------------------------------------------------------------- names */

static bool name_byte_is_safe(unsigned char c)
{
	return c >= ' ' && c != 0x7f && c != '/' && c != '\\';
}

void client_receive_safe_name(char out[RECEIVE_NAME_MAX + 1], const char *name)
{
	const char *last = name;
	size_t n;

	/* Both kinds of folders: the sender's system may be another one. */
	for (const char *p = name; *p; p++)
		if (*p == '/' || *p == '\\')
			last = p + 1;
	n = MIN(strlen(last), (size_t)RECEIVE_NAME_MAX);
	/* Cut between two characters. */
	while (n > 0 && n < strlen(last) && ((unsigned char)last[n] & 0xc0) == 0x80)
		n--;
	for (size_t i = 0; i < n; i++)
		out[i] = name_byte_is_safe((unsigned char)last[i]) ? last[i] : '_';
	out[n] = '\0';
	/* C1 control characters are two bytes of UTF-8, and some terminals know them. */
	for (size_t i = 0; i + 1 < n; i++)
		if ((unsigned char)out[i] == 0xc2 && (unsigned char)out[i + 1] < 0xa0)
			out[i] = out[i + 1] = '_';
	if (out[0] == '.')
		out[0] = '_';
	if (!out[0])
		snprintf(out, RECEIVE_NAME_MAX + 1, "file");
}

/* "photo.jpg" with 2 becomes "photo-2.jpg"; 0 is the name itself. */
static void name_with_number(char *out, size_t cap, const char *name, unsigned number)
{
	const char *dot = strrchr(name, '.');
	size_t stem = dot && dot != name ? (size_t)(dot - name) : strlen(name);

	if (number == 0)
		snprintf(out, cap, "%s", name);
	else
		snprintf(out, cap, "%.*s-%u%s", (int)stem, name, number, name + stem);
}

/* -------------------------------------------------------------------------------- ends */

static void file_free(struct client_receive *r, struct incoming_file *f)
{
	list_del(&f->node);
	fd_closep(&f->fd);
	r->n--;
	free(f);
}

static void file_fail(struct client_receive *r, struct incoming_file *f, const char *why)
{
	const struct receive_end end = {.name = f->name, .why = why, .bytes = f->bytes};

	(void)unlinkat(r->dir_fd, f->part, 0);
	r->fn(r->ctx, &end);
	file_free(r, f);
}

/* Gives it a name that no file has. Return: 0 | -errno. */
static int file_rename(const struct client_receive *r, struct incoming_file *f)
{
	char name[RECEIVE_NAME_MAX + 24];

	for (unsigned i = 0; i < NAME_TRIES; i++) {
		name_with_number(name, sizeof(name), f->name, i == 0 ? 0 : i + 1);
		/* A link never replaces anything, on every file system that has links. */
		if (linkat(r->dir_fd, f->part, r->dir_fd, name, 0) == 0) {
			(void)unlinkat(r->dir_fd, f->part, 0);
			snprintf(f->name, sizeof(f->name), "%.200s", name);
			return 0;
		}
		if (errno == EPERM || errno == EOPNOTSUPP)
			if (renameat2(r->dir_fd, f->part, r->dir_fd, name, RENAME_NOREPLACE) == 0)
				return 0;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

/* The content before the name: a name stands for a whole file, also after a crash. */
static void file_finish(struct client_receive *r, struct incoming_file *f)
{
	struct receive_end end = {.name = f->name, .bytes = f->bytes};
	int error = fsync(f->fd) < 0 ? -errno : file_rename(r, f);

	if (error) {
		file_fail(r, f, strerror(-error));
		return;
	}
	if (fsync(r->dir_fd) < 0)
		end.why = "it is there, but may not survive a crash";
	r->fn(r->ctx, &end);
	file_free(r, f);
}

void client_receive_drop_all(struct client_receive *r, const char *why)
{
	while (!list_is_empty(&r->open))
		file_fail(r, CONTAINER_OF(list_first(&r->open), struct incoming_file, node), why);
}

/* ------------------------------------------------------------------------------ chunks */

/* The transfer that a chunk goes on with, or NULL. */
static struct incoming_file *receive_find(const struct client_receive *r,
					  const Websocket__BinaryData *b)
{
	size_t id_len = MIN(b->transfer.len, (size_t)ID_MAX);

	LIST_FOREACH (node, &r->open) {
		struct incoming_file *f = CONTAINER_OF(node, struct incoming_file, node);

		if (id_len > 0 && f->id_len == id_len &&
		    memcmp(f->id, b->transfer.data, id_len) == 0)
			return f;
		/* Without an id: the one that waits for this number, and had one or none before. */
		if (id_len == 0 && b->sequence > 0 && f->next_sequence == b->sequence)
			return f;
	}
	return NULL;
}

static struct incoming_file *receive_begin(struct client_receive *r, const Websocket__BinaryData *b)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	struct incoming_file *f;
	uint64_t random;

	if (r->n == RECEIVE_MAX)
		file_fail(r, CONTAINER_OF(list_first(&r->open), struct incoming_file, node),
			  "too many files at once, and this one was silent longest");
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	client_receive_safe_name(f->name, b->name);
	f->id_len = MIN(b->transfer.len, (size_t)ID_MAX);
	if (f->id_len > 0)
		memcpy(f->id, b->transfer.data, f->id_len);
	f->announced = b->size;
	system_random_bytes(&random, sizeof(random));
	snprintf(f->part, sizeof(f->part), ".wsbind-%016" PRIx64, random);
	f->fd = openat(r->dir_fd, f->part, flags, 0666);
	if (f->fd < 0) {
		const struct receive_end end = {.name = f->name, .why = strerror(errno)};

		r->fn(r->ctx, &end);
		free(f);
		return NULL;
	}
	list_init(&f->node);
	list_add_tail(&r->open, &f->node);
	r->n++;
	return f;
}

static int file_write(struct incoming_file *f, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t done = write(f->fd, p, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		n -= (size_t)done;
		f->bytes += (uint64_t)done;
	}
	return 0;
}

/* The bytes of a chunk as its sender had them. Return: NULL | why there are none. */
static const char *chunk_unpack(struct client_receive *r, const Websocket__WebSocketMessage *m,
				const uint8_t **ret, size_t *ret_n)
{
	const Websocket__BinaryData *b = m->binary;

	if (msg_check_binary(m) != MSG_OK)
		return "a chunk's checksum is wrong";
	*ret = b->data.data;
	*ret_n = b->data.len;
	if (b->compression == WEBSOCKET__COMPRESSION_TYPE__NONE)
		return NULL;
	buf_clear(&r->scratch);
	if (zip_unpack(&r->zip, (enum zip_kind)b->compression, b->data.data, b->data.len,
		       UNPACK_MAX, &r->scratch))
		return "a chunk cannot be unpacked";
	*ret = r->scratch.data;
	*ret_n = r->scratch.len;
	return NULL;
}

/* Writes a chunk to its file. Return: NULL | why that ends it. */
static const char *file_take(struct client_receive *r, struct incoming_file *f,
			     const Websocket__WebSocketMessage *m)
{
	const uint8_t *p;
	size_t n;
	const char *why = chunk_unpack(r, m, &p, &n);
	int error;

	if (why)
		return why;
	if (m->binary->sequence != f->next_sequence)
		return "a chunk is missing";
	if (r->max_bytes && (n > r->max_bytes || f->bytes > r->max_bytes - n))
		return "it is larger than spool_max_file_size";
	if (f->announced && f->bytes + n > f->announced)
		return "it is longer than was announced";
	f->next_sequence++;
	error = file_write(f, p, n);
	if (error)
		return strerror(-error);
	if (m->binary->is_last && f->announced && f->bytes != f->announced)
		return "it is shorter than was announced";
	return NULL;
}

void client_receive_take(struct client_receive *r, const Websocket__WebSocketMessage *m)
{
	const Websocket__BinaryData *b = m->binary;
	struct incoming_file *f = receive_find(r, b);
	const char *why;

	if (f && b->sequence == 0) {
		file_fail(r, f, "it began anew before its last chunk");
		f = NULL;
	}
	/*
	 * The middle of something whose beginning wasn't seen, or that was given up: passed over.
	 */
	if (!f && b->sequence == 0)
		f = receive_begin(r, b);
	if (!f)
		return;
	list_del(&f->node);
	list_add_tail(&r->open, &f->node);
	why = file_take(r, f, m);
	if (why)
		file_fail(r, f, why);
	else if (b->is_last)
		file_finish(r, f);
}

/* ----------------------------------------------------------------- beginning and end */

int client_receive_open(const char *dir, uint64_t max_bytes, receive_end_fn *fn, void *ctx,
			struct client_receive **ret)
{
	WB_CLEANUP(fd_closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct client_receive *r;

	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return -errno;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	zip_init(&r->zip);
	list_init(&r->open);
	r->dir_fd = TAKE_FD(fd);
	r->max_bytes = max_bytes;
	r->fn = fn;
	r->ctx = ctx;
	*ret = r;
	return 0;
}

struct client_receive *client_receive_free(struct client_receive *r)
{
	if (!r)
		return NULL;
	client_receive_drop_all(r, "the client ends");
	fd_closep(&r->dir_fd);
	zip_fini(&r->zip);
	buf_fini(&r->scratch);
	free(r);
	return NULL;
}
