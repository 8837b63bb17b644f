/* SPDX-License-Identifier: MIT */
#include "server/store.h"

#include <string.h>

#include "service/systemd.h"

const char *const store_listener_name[LISTENER_N_KINDS] = {
	[LISTENER_PLAIN] = "wsbind-plain",
	[LISTENER_TLS] = "wsbind-tls",
	[LISTENER_UNIX] = "wsbind-unix",
	[LISTENER_ACTIVATED] = "wsbind-given",
};

enum worker_listener_kind store_listener_kind(const char *name)
{
	/* systemd's own names are of units, which administrators choose. */
	for (size_t i = 0; i < LISTENER_N_KINDS; i++)
		if (strcmp(store_listener_name[i], name) == 0)
			return (enum worker_listener_kind)i;
	return LISTENER_ACTIVATED;
}

int store_put(const char *name, const int *fds, unsigned n)
{
	int r = 0;

	/* The manager takes no more than this of one message. */
	for (unsigned at = 0; at < n && r == 0; at += SYSTEMD_STORE_BATCH)
		r = systemd_store(name, fds + at, MIN(n - at, (unsigned)SYSTEMD_STORE_BATCH));
	return r;
}

void store_drop_history(void)
{
	(void)systemd_unstore(STORE_HISTORY);
}

void store_empty(void)
{
	/* What is not there, or was not kept, is no error: the store is empty of it. */
	(void)systemd_unstore(STORE_RECORDS);
	(void)systemd_unstore(STORE_PARCEL);
	/* LISTENER_ACTIVATED was never put there: the manager holds those sockets by their unit. */
	for (size_t i = 0; i < LISTENER_ACTIVATED; i++)
		(void)systemd_unstore(store_listener_name[i]);
}
