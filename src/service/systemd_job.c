/* SPDX-License-Identifier: MIT */
/*
 * Why the manager stops a service is nowhere in what the service itself gets to see: SIGTERM is
 * the same for a stop and a restart. The unit's job says it, as long as the job runs, which
 * ExecStop= is a part of.
 */
#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "service/systemd.h"

#define MANAGER "org.freedesktop.systemd1"
#define WAIT_US ((uint64_t)1000000) /* for the bus, and for an answer */

static void bus_closep(sd_bus **bus)
{
	*bus = sd_bus_close_unref(*bus);
}

static uint64_t now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* A call alone would wait for a daemon that does not answer for as long as it likes. */
static int bus_wait_ready(sd_bus *bus)
{
	uint64_t end = now_us() + WAIT_US;

	for (;;) {
		int r = sd_bus_is_ready(bus);
		uint64_t now = now_us();

		if (r != 0)
			return MIN(r, 0);
		if (now >= end)
			return -ETIMEDOUT;
		/* Authentication and Hello go on in here, step by step. */
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, end - now);
		if (r < 0)
			return r;
	}
}

/* Where root finds the manager without a message bus, as systemctl does. */
static int bus_open_private(sd_bus **ret)
{
	WB_CLEANUP(bus_closep) sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, "unix:path=/run/systemd/private");
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r >= 0)
		*ret = TAKE_PTR(bus);
	return r;
}

static int bus_prepare(sd_bus *bus)
{
	int r = sd_bus_set_method_call_timeout(bus, WAIT_US);

	return r < 0 ? r : bus_wait_ready(bus);
}

/* A user's own manager sets MANAGERPID (systemd.exec(5)). */
static int bus_open(sd_bus **ret)
{
	bool is_user = getenv("MANAGERPID") != NULL;
	int r = is_user ? sd_bus_open_user(ret) : sd_bus_open_system(ret);

	if (r >= 0)
		r = bus_prepare(*ret);
	if (r >= 0 || is_user || geteuid() != 0)
		return r;
	/* Early in the boot, and in containers, there is no message bus; root needs none. */
	bus_closep(ret);
	r = bus_open_private(ret);
	return r < 0 ? r : bus_prepare(*ret);
}

/* Property Job: (id, path); id 0 is none. */
static int find_job(sd_bus *bus, const char *unit, char **ret_path)
{
	sd_bus_message *m = NULL;
	const char *path = NULL;
	uint32_t id = 0;
	int r = sd_bus_get_property(bus, MANAGER, unit, MANAGER ".Unit", "Job", NULL, &m, "(uo)");

	if (r >= 0)
		r = sd_bus_message_read(m, "(uo)", &id, &path);
	if (r >= 0 && id) {
		*ret_path = strdup(path);
		r = *ret_path ? 0 : -ENOMEM;
	}
	sd_bus_message_unref(m);
	return r;
}

int systemd_ask_job(const char *unit_name, enum systemd_job *ret, unsigned *ret_store)
{
	WB_CLEANUP(bus_closep) sd_bus *bus = NULL;
	WB_CLEANUP(ptr_freep) char *unit = NULL, *job = NULL, *type = NULL;
	uint32_t store = 0;
	int r = bus_open(&bus);

	if (r >= 0)
		r = sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit_name, &unit);
	if (r >= 0)
		r = sd_bus_get_property_trivial(bus, MANAGER, unit, MANAGER ".Service",
						"FileDescriptorStoreMax", NULL, 'u', &store);
	if (r >= 0)
		r = find_job(bus, unit, &job);
	/* A job that is done meanwhile is an error here, and so no restart: the safe side. */
	if (r >= 0 && job)
		r = sd_bus_get_property_string(bus, MANAGER, job, MANAGER ".Job", "JobType", NULL,
					       &type);
	if (r < 0)
		return r;
	/* Whatever else ends the service counts as a stop: connections are closed politely then. */
	*ret_store = store;
	*ret = !type                          ? SYSTEMD_JOB_NONE
	       : strcmp(type, "restart") == 0 ? SYSTEMD_JOB_RESTART
					      : SYSTEMD_JOB_STOP;
	return 0;
}
