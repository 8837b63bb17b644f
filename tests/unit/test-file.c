/* SPDX-License-Identifier: MIT */
#include "base/file.h"

#include <errno.h>
#include <sys/stat.h>

#include "key-file.h"
#include "test.h"

TEST(file_is_read_whole_or_not_at_all)
{
	static char content[100000], out[sizeof(content)];
	struct key_file f;
	size_t n = 1;

	memset(content, 'x', sizeof(content));
	f = key_file_of(content, sizeof(content));
	CHECK_EQ(file_read(f.path, out, sizeof(out), &n), 0);
	CHECK_EQ(n, sizeof(content));
	CHECK_MEM(out, content, n);
	CHECK_EQ(file_read(f.path, out, sizeof(out) - 1, &n), FILE_E_TOO_LONG);
	close(f.fd);
	f = key_file_of("", 0);
	CHECK_EQ(file_read(f.path, out, sizeof(out), &n), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(file_read(f.path, out, 0, &n), 0);
	close(f.fd);
	CHECK_EQ(file_read("/no/such/file", out, sizeof(out), &n), -ENOENT);
	CHECK_EQ(file_read("/", out, sizeof(out), &n), -EISDIR);
}

/* As shells make it of <(command): in pieces, and without a size. */
TEST(file_may_be_a_pipe_where_any_kind_is_taken)
{
	char out[10], path[64];
	int fds[2];
	size_t n;

	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(write(fds[1], "secret", 6), 6);
	CHECK_EQ(close(fds[1]), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	CHECK_EQ(file_read(path, out, sizeof(out), &n), FILE_E_KIND);
	CHECK_EQ(file_read_any(path, out, sizeof(out), &n), 0);
	CHECK_EQ(n, 6);
	CHECK_MEM(out, "secret", 6);
	close(fds[0]);
}

/* A FIFO that nobody writes to: open(2) would wait for ever. */
TEST(file_that_is_none_is_told_from_one_that_is_missing)
{
	char dir[] = "/tmp/wsbind-file-XXXXXX", fifo[64], link[64], out[10];
	size_t n;

	CHECK(mkdtemp(dir));
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	snprintf(link, sizeof(link), "%s/link", dir);
	CHECK_EQ(mkfifo(fifo, 0600), 0);
	CHECK_EQ(symlink("/no/such/file", link), 0);
	CHECK_EQ(file_read(fifo, out, sizeof(out), &n), FILE_E_KIND);
	CHECK_EQ(file_read_any(fifo, out, sizeof(out), &n), FILE_E_SILENT);
	CHECK_EQ(file_read(link, out, sizeof(out), &n), FILE_E_DANGLING);
	CHECK_EQ(file_read("/dev/zero", out, sizeof(out), &n), FILE_E_KIND);
	CHECK_EQ(file_read_any("/dev/zero", out, sizeof(out), &n), FILE_E_TOO_LONG);
	CHECK_EQ(file_read("/dev/null", out, sizeof(out), &n), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(unlink(fifo), 0);
	CHECK_EQ(unlink(link), 0);
	CHECK_EQ(rmdir(dir), 0);
}
