/* SPDX-License-Identifier: MIT */
#include "service/memory_limit.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The group of the unified hierarchy: "0::/system.slice/wsbind.service". False: there is none. */
static bool find_group(const char *list, char *ret, size_t cap)
{
	FILE *f = fopen(list, "re");
	bool found = false;

	while (f && !found && fgets(ret, (int)cap, f)) {
		ret[strcspn(ret, "\n")] = '\0';
		found = strncmp(ret, "0::/", 4) == 0;
	}
	if (f)
		(void)fclose(f);
	/* What stands before the path is no part of it. */
	if (found)
		memmove(ret, ret + 3, strlen(ret + 3) + 1);
	return found;
}

/* The limit of one group; a word where there is none, and no file in the topmost. */
static uint64_t limit_of(const char *root, const char *group)
{
	char path[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s%s/memory.max", root, group) >= (int)sizeof(path))
		return UINT64_MAX;
	f = fopen(path, "re");
	if (f && fscanf(f, "%" SCNu64, &limit) != 1)
		limit = UINT64_MAX;
	if (f)
		(void)fclose(f);
	return limit;
}

uint64_t memory_limit(const char *list, const char *root)
{
	char group[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	char *end;

	if (!find_group(list ? list : "/proc/self/cgroup", group, sizeof(group)))
		return UINT64_MAX;
	/* A slice above may have less than the unit itself. */
	do {
		uint64_t own = limit_of(root ? root : "/sys/fs/cgroup", group);

		limit = MIN(limit, own);
		end = strrchr(group, '/');
		if (end)
			*end = '\0';
	} while (end);
	return limit;
}
