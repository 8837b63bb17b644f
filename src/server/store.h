/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the service manager's store keeps from one process to the next, by name: the file of
 * records, the ends of the parcels, the listening sockets, and the file with what channels keep.
 *
 * The names are older than this process: a daemon that was started before an upgrade has put
 * its descriptors there under them, so none of them may ever change.
 */

#include "worker/worker.h"

#define STORE_RECORDS "wsbind-state"
#define STORE_PARCEL "wsbind-bag"
#define STORE_HISTORY "wsbind-history"

/* Of listening sockets, by their kind. */
extern const char *const store_listener_name[LISTENER_N_KINDS];

/* The kind that a name stands for; a socket with none of these names came by activation. */
enum worker_listener_kind store_listener_kind(const char *name);

/* Has the manager keep @n descriptors (borrowed) under one name. Return: 0 | -errno. */
int store_put(const char *name, const int *fds, unsigned n) WB_NODISCARD;

/*
 * The manager need not keep any of it (any longer) but what channels keep: that is for a crash,
 * too.
 */
void store_empty(void);

/* Nor that. */
void store_drop_history(void);
