/* SPDX-License-Identifier: MIT */
#include "client/client_receive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "containers/buf.h"
#include "test.h"
#include "wire/zip.h"

static struct box {
	char dir[64];
	struct client_receive *receive;
	unsigned n_kept, n_failed;
	char name[256], why[128];
	struct msg_builder b;
} box;

static void on_end(void *ctx, const struct receive_end *end)
{
	struct box *x = ctx;

	snprintf(x->name, sizeof(x->name), "%s", end->name);
	snprintf(x->why, sizeof(x->why), "%s", end->why ? end->why : "");
	x->n_kept += !end->why;
	x->n_failed += !!end->why;
}

static void open_box(uint64_t max_bytes)
{
	memset(&box, 0, sizeof(box));
	snprintf(box.dir, sizeof(box.dir), "/tmp/wsbind-box-XXXXXX");
	CHECK(mkdtemp(box.dir));
	CHECK_EQ(client_receive_open(box.dir, max_bytes, on_end, &box, &box.receive), 0);
}

/* Files there, hidden ones included. */
static unsigned count(void)
{
	DIR *d = opendir(box.dir);
	const struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

static void close_box(unsigned files)
{
	char command[128];

	box.receive = client_receive_free(box.receive);
	CHECK_EQ(count(), files);
	snprintf(command, sizeof(command), "rm -rf %s", box.dir);
	CHECK_EQ(system(command), 0);
}

static void take(const char *transfer, uint32_t sequence, bool is_last, const char *name,
		 uint64_t size, const char *text)
{
	msg_init_binary(&box.b, text, strlen(text), sequence, is_last,
			WEBSOCKET__COMPRESSION_TYPE__NONE);
	msg_set_file(&box.b, name, size, transfer, strlen(transfer));
	client_receive_take(box.receive, &box.b.m);
}

static void check_file(const char *name, const char *text)
{
	char path[400], have[256] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/%s", box.dir, name);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	CHECK(read(fd, have, sizeof(have) - 1) >= 0);
	CHECK_STR(have, text);
	close(fd);
}

TEST(receive_keeps_files_under_their_names)
{
	open_box(0);
	take("a", 0, false, "photo.jpg", 7, "one ");
	take("b", 0, false, "other", 0, "x");
	CHECK_EQ(count(), 2);
	take("a", 1, true, NULL, 0, "two");
	CHECK_STR(box.name, "photo.jpg");
	check_file("photo.jpg", "one two");
	take("b", 1, true, "other", 0, "y");
	check_file("other", "xy");
	take("c", 0, true, "", 0, "");
	CHECK_STR(box.name, "file");
	CHECK_EQ(box.n_kept, 3);
	close_box(3);
}

TEST(receive_replaces_nothing)
{
	char path[128];
	int fd;

	open_box(0);
	snprintf(path, sizeof(path), "%s/a.txt", box.dir);
	CHECK_EQ(symlink("/no/such/place", path), 0);
	for (int i = 2; i <= 4; i++) {
		char name[32];

		take("t", 0, true, "a.txt", 0, i == 2 ? "2" : i == 3 ? "3" : "4");
		snprintf(name, sizeof(name), "a-%d.txt", i);
		CHECK_STR(box.name, name);
		check_file(name, i == 2 ? "2" : i == 3 ? "3" : "4");
	}
	fd = open(path, O_RDONLY);
	CHECK(fd < 0 && errno == ENOENT);
	close_box(4);
}

TEST(receive_names_lead_nowhere_else)
{
	static const struct {
		const char *name, *safe;
	} cases[] = {
		{"plain", "plain"},
		{"../../etc/passwd", "passwd"},
		{"/etc/passwd", "passwd"},
		{"C:\\temp\\x.exe", "x.exe"},
		{"..", "_."},
		{".", "_"},
		{".bashrc", "_bashrc"},
		{"a/", "file"},
		{"", "file"},
		{"a\x1b[2Jb\nc\x7f", "a_[2Jb_c_"},
		{"x\xc2\x9by", "x__y"},
		{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
	};
	char out[RECEIVE_NAME_MAX + 1], name[500];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		client_receive_safe_name(out, cases[i].name);
		CHECK_STR(out, cases[i].safe);
	}
	/* Cut, and not within a character. */
	for (size_t i = 0; i < 400; i += 2)
		memcpy(name + 1 + i, "\xc3\xbc", 3);
	name[0] = 'a';
	client_receive_safe_name(out, name);
	CHECK_EQ(strlen(out), 199);
}

TEST(receive_leaves_nothing_of_what_breaks)
{
	open_box(20);
	take("a", 0, false, "gap", 0, "x");
	take("a", 2, false, NULL, 0, "x");
	CHECK_STR(box.why, "a chunk is missing");
	take("a", 3, true, NULL, 0, "x"); /* said once */
	CHECK_EQ(box.n_failed, 1);
	take("b", 0, true, "short", 5, "x");
	CHECK_STR(box.why, "it is shorter than was announced");
	take("c", 0, true, "long", 1, "xx");
	CHECK_STR(box.why, "it is longer than was announced");
	take("d", 0, false, "large", 0, "0123456789");
	take("d", 1, true, NULL, 0, "01234567890");
	CHECK_STR(box.why, "it is larger than spool_max_file_size");
	msg_init_binary(&box.b, "data", 4, 0, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	box.b.checksum[0] ^= 1;
	client_receive_take(box.receive, &box.b.m);
	CHECK_STR(box.why, "a chunk's checksum is wrong");
	take("e", 0, false, "half", 0, "x");
	take("e", 0, false, "half", 0, "x");
	CHECK_STR(box.why, "it began anew before its last chunk");
	client_receive_drop_all(box.receive, "gone");
	CHECK_STR(box.why, "gone");
	CHECK_EQ(box.n_failed, 7);
	take("f", 1, true, "middle", 0, "x"); /* its beginning wasn't seen */
	CHECK_EQ(box.n_failed, 7);
	CHECK_EQ(box.n_kept, 0);
	take("g", 0, false, "half", 0, "x"); /* until the client ends */
	close_box(0);
}

TEST(receive_is_bounded)
{
	char id[16], name[16];

	open_box(0);
	for (unsigned i = 0; i <= RECEIVE_MAX; i++) {
		snprintf(id, sizeof(id), "t%u", i);
		snprintf(name, sizeof(name), "n%u", i);
		take(id, 0, false, name, 0, "x");
		if (i == 1)
			take("t0", 1, false, NULL, 0, "y");
	}
	CHECK_EQ(box.n_failed, 1);
	CHECK_STR(box.name, "n1"); /* the one that was silent longest */
	CHECK_EQ(count(), RECEIVE_MAX);
	take("t0", 2, true, NULL, 0, "z");
	check_file("n0", "xyz");
	close_box(1);
}

/* A sender that knows nothing of names and ids, and data that somebody packed. */
TEST(receive_takes_chunks_without_an_id_and_packed_ones)
{
	struct buf packed = {0};
	struct zip z = {0};

	open_box(0);
	take("", 0, false, NULL, 0, "one ");
	CHECK_EQ(zip_pack_kind(&z, ZIP_GZIP, 3, "two", 3, &packed), 0);
	msg_init_binary(&box.b, packed.data, packed.len, 1, true,
			WEBSOCKET__COMPRESSION_TYPE__GZIP);
	client_receive_take(box.receive, &box.b.m);
	CHECK_STR(box.name, "file");
	check_file("file", "one two");
	msg_init_binary(&box.b, "junk", 4, 0, true, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	client_receive_take(box.receive, &box.b.m);
	CHECK_STR(box.why, "a chunk cannot be unpacked");
	buf_fini(&packed);
	zip_fini(&z);
	close_box(1);
}

TEST(receive_wants_a_folder)
{
	struct client_receive *r = NULL;

	CHECK_EQ(client_receive_open("/no/such/folder", 0, on_end, &box, &r), -ENOENT);
	CHECK_EQ(client_receive_open("/dev/null", 0, on_end, &box, &r), -ENOTDIR);
	CHECK(!r && !client_receive_free(NULL));
}
