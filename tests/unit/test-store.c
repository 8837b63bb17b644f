/* SPDX-License-Identifier: MIT */
/* What the manager keeps is found again by names that every version knows. */
#include "test.h"

#include "server/store.h"

TEST(store_names_stay_what_they_were)
{
	static const char *const name[] = {"wsbind-plain", "wsbind-tls", "wsbind-unix"};
	static const enum worker_listener_kind kind[] = {LISTENER_PLAIN, LISTENER_TLS,
							 LISTENER_UNIX};

	CHECK_STR(STORE_RECORDS, "wsbind-state");
	CHECK_STR(STORE_PARCEL, "wsbind-bag");
	for (size_t i = 0; i < ARRAY_LEN(name); i++) {
		CHECK_STR(store_listener_name[kind[i]], name[i]);
		CHECK_EQ(store_listener_kind(name[i]), kind[i]);
	}
	/* By SIGUSR2 sockets of activation travel, too; systemd gives them names of its units. */
	CHECK_STR(store_listener_name[LISTENER_ACTIVATED], "wsbind-given");
	CHECK_EQ(store_listener_kind("wsbind-given"), LISTENER_ACTIVATED);
	CHECK_EQ(store_listener_kind("wsbind.socket"), LISTENER_ACTIVATED);
}
