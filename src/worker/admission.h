/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Who may come in: one atomic total for max_connections, and a fixed table of
 * atomic cells for max_connections_per_ip. The only thing that workers share
 * beside channels, since SO_REUSEPORT doesn't spread connections evenly.
 *
 * An IPv6 address counts by its network of 64 bits: whoever has one has all that are in it.
 *
 * A cell holds a 40-bit digest of an address and a 24-bit count. An address looks
 * for its digest in one line of cells, else takes a free one there. When the
 * line is full of other addresses it isn't counted: with a table of at least
 * twice max_connections that needs thousands of addresses that collide, and then
 * max_connections still holds. Two workers may open two cells for one address at
 * the same instant; both are added up.
 */

#include "base/base.h"
#include "io/sock.h"

enum admission_result {
	ADMISSION_E_FULL = 1,   /* max_connections */
	ADMISSION_E_PER_IP = 2, /* max_connections_per_ip */
};

#define ADMISSION_REFUSED_MAX 512

struct WB_SHARED admission {
	alignas(WB_CACHELINE) _Atomic uint64_t total;
	_Atomic uint64_t refused; /* wait for their answer */
	_Atomic uint64_t *cells WB_FROZEN;
	size_t mask WB_FROZEN;
	uint64_t secret WB_FROZEN; /* so that nobody outside can choose addresses that collide */
};

/* @connections: most that are expected; decides the size of the table. Return: 0 | -ENOMEM. */
int admission_init(struct admission *a, uint64_t connections) WB_NODISCARD;
void admission_fini(struct admission *a);

/**
 * admission_enter() - count a connection that came in
 * @max_total:  more than this is too many
 * @max_per_ip: the same for one address; 0: no limit
 *
 * One that is let in counts until admission_leave(). One that isn't takes no
 * place from others: who keeps trying keeps nobody out.
 *
 * Return:  0 | ADMISSION_E_FULL | ADMISSION_E_PER_IP.
 * Thread:  any.
 */
WB_ANY_THREAD int admission_enter(struct admission *a, const struct sock_peer *peer,
				  uint64_t max_total, uint64_t max_per_ip) WB_NODISCARD;
WB_ANY_THREAD void admission_leave(struct admission *a, const struct sock_peer *peer);

/**
 * admission_move() - a connection turns out to be of another address
 *
 * What a proxy brought counts for the client that it speaks for.
 *
 * Return:  0, it counts for @to from now on | ADMISSION_E_PER_IP, as before.
 * Thread:  any.
 */
WB_ANY_THREAD int admission_move(struct admission *a, const struct sock_peer *from,
				 const struct sock_peer *to, uint64_t max_per_ip) WB_NODISCARD;

/*
 * Those that were refused and stay until they have their answer, bounded on their own.
 * Return: false: too many of them, this one gets none. Thread: any.
 */
WB_ANY_THREAD bool admission_enter_refused(struct admission *a) WB_NODISCARD;
WB_ANY_THREAD void admission_leave_refused(struct admission *a);

/* Connections of all workers that were let in, those in their handshake included. Thread: any. */
static inline uint64_t admission_total(struct admission *a)
{
	return atomic_load_explicit(&a->total, memory_order_relaxed);
}
