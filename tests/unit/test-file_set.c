/* SPDX-License-Identifier: MIT */
#include "base/file_set.h"

#include <errno.h>

#include "key-file.h"
#include "test.h"

TEST(file_set_reads_each_file_once)
{
	struct key_file f = key_file_of("first", 5);
	struct file_set set = {0};
	const uint8_t *p;
	size_t n;

	CHECK_EQ(file_set_read(&set, f.path, &p, &n), 0);
	CHECK_EQ(n, 5);
	CHECK_EQ(pwrite(f.fd, "other", 5, 0), 5);
	CHECK_EQ(file_set_read(&set, f.path, &p, &n), 0);
	CHECK_MEM(p, "first", 6);
	CHECK_EQ(set.count, 1);
	CHECK_EQ(file_set_read(&set, "/no/such", &p, &n), -ENOENT);
	CHECK_EQ(set.count, 1);
	file_set_fini(&set);
	close(f.fd);
}

TEST(file_set_that_is_closed_reads_none)
{
	struct key_file f = key_file_of("x", 1);
	struct file_set set = {.is_closed = true};
	const uint8_t *p;
	size_t n;

	CHECK_EQ(file_set_add(&set, "/a", "", 0), 0);
	CHECK_EQ(file_set_read(&set, "/a", &p, &n), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(file_set_read(&set, f.path, &p, &n), -ENOENT);
	file_set_fini(&set);
	close(f.fd);
}
