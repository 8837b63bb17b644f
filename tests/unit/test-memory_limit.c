/* SPDX-License-Identifier: MIT */
#include "service/memory_limit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static void put(const char *folder, const char *name, const char *text)
{
	char path[500];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "we");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

TEST(memory_limit_is_the_least_on_the_way_up)
{
	static const struct {
		const char *list, *unit, *slice;
		uint64_t limit;
	} row[] = {
		{"0::/a.slice/b.service\n", "400\n", "max\n", 400},
		{"0::/a.slice/b.service\n", "400\n", "300\n", 300},
		{"9:memory:/x\n0::/a.slice/b.service\n", "max\n", "max\n", UINT64_MAX},
		{"0::/a.slice/b.service\n", "", "500\n", 500},
		{"0::/\n", "400\n", "300\n", UINT64_MAX},
		{"0::/gone\n", "400\n", "300\n", UINT64_MAX},
		{"9:memory:/a.slice\n", "400\n", "300\n", UINT64_MAX},
		{"", "400\n", "300\n", UINT64_MAX},
	};
	char folder[] = "/tmp/wsbind-test-XXXXXX", list[100], slice[100], unit[200], file[300];

	CHECK(mkdtemp(folder) != NULL);
	snprintf(list, sizeof(list), "%s/list", folder);
	snprintf(slice, sizeof(slice), "%s/a.slice", folder);
	snprintf(unit, sizeof(unit), "%s/b.service", slice);
	CHECK(mkdir(slice, 0700) == 0 && mkdir(unit, 0700) == 0);
	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		put(folder, "list", row[i].list);
		put(slice, "memory.max", row[i].slice);
		put(unit, "memory.max", row[i].unit);
		if (memory_limit(list, folder) != row[i].limit)
			FAIL("row %zu", i);
	}
	CHECK_EQ(unlink(list), 0);
	CHECK_EQ(memory_limit(list, folder), UINT64_MAX);
	snprintf(file, sizeof(file), "%s/memory.max", unit);
	CHECK_EQ(unlink(file), 0);
	snprintf(file, sizeof(file), "%s/memory.max", slice);
	CHECK_EQ(unlink(file), 0);
	CHECK(rmdir(unit) == 0 && rmdir(slice) == 0 && rmdir(folder) == 0);
}
