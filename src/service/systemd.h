/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the service manager wants to hear, what it hands over, and what it keeps for the
 * next process: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3),
 * sd_pid_notify_with_fds(3), org.freedesktop.systemd1(5).
 *
 * Without systemd those that tell are cheap no-ops that report success, and those that take say
 * "none", so that the caller needs no case for it. Only who wants something kept, or asks, hears
 * that nobody is there.
 *
 * Nothing waits for an answer but systemd_barrier() and systemd_ask_job(). What the manager does
 * not take is lost and reported as -errno; a daemon goes on without.
 */

#include <signal.h>

#include "base/base.h"

/* More descriptors than this are refused: no unit names, and no hand-over has, that many. */
#define SYSTEMD_MAX_SOCKETS 2200
#define SYSTEMD_STATUS_MAX 512 /* of a status text, NUL included; the rest is cut */

enum systemd_socket_kind {
	SYSTEMD_TCP,   /* stream, IPv4 or IPv6, listening */
	SYSTEMD_UNIX,  /* stream, unix, listening */
	SYSTEMD_UNFIT, /* anything else */
};

/* A descriptor that the manager handed over. */
struct WB_VALUE systemd_socket {
	int fd; /* close-on-exec, non-blocking */
	enum systemd_socket_kind kind;
	uint16_t port; /* of SYSTEMD_TCP */
	char name[64]; /* FileDescriptorName=, cut; "unknown" when there is none */
};

/* All that were handed over. All-zero is empty. */
struct WB_VALUE systemd_sockets {
	struct systemd_socket *socket;
	size_t n;
};

/*
 * systemd_*() - tell the manager
 *
 * Return:  0, also without systemd | -errno of the notification.
 * Thread:  main.
 */

/* Everything listens, or a reload is over; @status as for systemd_status(). */
WB_PRINTF(1, 2) int systemd_ready(const char *status, ...);

/* One line for `systemctl status`. Line breaks become spaces. */
WB_PRINTF(1, 2) int systemd_status(const char *status, ...);

/* A reload begins; systemd_ready() has to follow. Sends MONOTONIC_USEC, for Type=notify-reload. */
int systemd_reloading(void);

/* The end begins. */
int systemd_stopping(void);

/* Alive; due at least once in each watchdog interval. */
int systemd_watchdog(void);

/* Start, reload or stop takes @ns more from now. */
int systemd_extend_timeout(uint64_t ns);

/* The watchdog's interval [ns], within which systemd_watchdog() is due; 0: there is none. */
uint64_t systemd_watchdog_ns(void);

/* Whether a manager listens for notifications at all. */
bool systemd_is_there(void);

/**
 * systemd_take_sockets() - take over the descriptors of socket activation and of the store
 * @ret:    every one of them, unfit ones too, so that the caller can name them
 *
 * The environment variables go, so that no child takes them for its own; a
 * second call finds nothing.
 *
 * Return:  0 (@ret->n may be 0) | -E2BIG more than SYSTEMD_MAX_SOCKETS; they are closed |
 *          -errno of sd_listen_fds or fcntl.
 * Owns:    the descriptors are the caller's, unfit ones too.
 * Thread:  main, before any other starts.
 */
int systemd_take_sockets(struct systemd_sockets *ret) WB_NODISCARD;

/* Closes what was not taken out (-1); accepts all-zero. */
void systemd_sockets_fini(struct systemd_sockets *sockets);

/**
 * systemd_store() - let the manager keep descriptors for the next process of the service
 * @name:  that they come back with; several may have the same
 * @fds:   @n of them, at most SYSTEMD_STORE_BATCH; borrowed: the manager has copies
 *
 * They are kept whether they hang up or not, over restarts, not over a stop.
 *
 * Return: 0 | -ENOTCONN there is no manager | -errno.
 */
#define SYSTEMD_STORE_BATCH 253
int systemd_store(const char *name, const int *fds, unsigned n) WB_NODISCARD;

/*
 * Waits until the manager has read all it was told, @ns at most. Return: 0 | -ENOTCONN there is no
 * manager | -errno.
 */
int systemd_barrier(uint64_t ns) WB_NODISCARD;

/* The manager forgets what it keeps by that name. Return: as systemd_ready(). */
int systemd_unstore(const char *name);

/* What a SIGTERM is a part of. */
enum systemd_job {
	SYSTEMD_JOB_NONE, /* nothing that the manager does: a signal by hand, a time limit */
	SYSTEMD_JOB_RESTART,
	SYSTEMD_JOB_STOP, /* or whatever else ends it */
};

/**
 * systemd_ask_job() - ask the manager why it stops a service
 * @ret_store: descriptors that it would keep (FileDescriptorStoreMax=)
 *
 * For root, who can ask without a message bus; that bus turns away who has a dynamic user id
 * (dbus-daemon 1.14 with systemd 252). Takes milliseconds, at most some seconds.
 *
 * Return: 0 | -errno: there is no manager that can be asked.
 * Thread: any.
 */
int systemd_ask_job(const char *unit, enum systemd_job *ret, unsigned *ret_store) WB_NODISCARD;

/*
 * Sent with that store size (sigqueue(3)) to the daemon by ExecStop= when a restart is
 * meant; SIGTERM follows.
 */
#define SYSTEMD_SIGNAL_RESTART SIGRTMIN
