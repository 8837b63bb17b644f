/* SPDX-License-Identifier: MIT */
#include "worker/admission.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/ip.h"

#define LINE_CELLS 8 /* that an address may be in: one line of cache */
#define COUNT_BITS 24
#define COUNT_MASK ((1ULL << COUNT_BITS) - 1)

int admission_init(struct admission *a, uint64_t connections)
{
	size_t cells = 1024;

	/* Half empty at worst, so that a line is full of others almost never. */
	while (cells < 2 * connections)
		cells *= 2;
	a->cells = calloc(cells, sizeof(*a->cells));
	if (!a->cells)
		return -ENOMEM;
	a->mask = cells - 1;
	(void)!getrandom(&a->secret, sizeof(a->secret),
			 0); /* without it the table only is guessable */
	return 0;
}

void admission_fini(struct admission *a)
{
	free(a->cells);
	a->cells = NULL;
}

static uint64_t peer_digest(const struct admission *a, const struct sock_peer *peer)
{
	uint64_t words[2], h = a->secret;
	uint8_t network[IP_BYTES];

	ip_network(peer->ip, network);
	/* The low bits choose the line, the high ones are the digest: all are mixed. */
	memcpy(words, network, sizeof(words));
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 29;
	}
	h = (h ^ h >> 32) * 0xbf58476d1ce4e5b9ULL;
	return h ^ h >> 31;
}

static _Atomic uint64_t *line_of(struct admission *a, uint64_t h)
{
	return &a->cells[h & a->mask & ~(size_t)(LINE_CELLS - 1)];
}

static bool cell_is_of(uint64_t cell, uint64_t h)
{
	return cell && (cell ^ h) >> COUNT_BITS == 0;
}

/* Adds one to the address's cell or to a free one; false when the line is full of others. */
static bool line_count_up(_Atomic uint64_t *line, uint64_t h)
{
	/* A free cell only when no cell of the line has the address: else it would have two. */
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < LINE_CELLS; i++) {
			uint64_t cell = atomic_load_explicit(&line[i], memory_order_relaxed);

			/* If another worker was faster, its change may do, too. */
			while (pass == 0 ? cell_is_of(cell, h) : cell == 0) {
				uint64_t more = pass == 0 ? cell + 1 : ((h & ~COUNT_MASK) | 1);

				if (atomic_compare_exchange_weak_explicit(&line[i], &cell, more,
									  memory_order_relaxed,
									  memory_order_relaxed))
					return true;
			}
		}
	}
	return false;
}

static void line_count_down(_Atomic uint64_t *line, uint64_t h)
{
	for (size_t i = 0; i < LINE_CELLS; i++) {
		uint64_t cell = atomic_load_explicit(&line[i], memory_order_relaxed);

		/* The last one frees the cell in one step: it never has a count of 0. */
		while (cell_is_of(cell, h)) {
			uint64_t less = (cell & COUNT_MASK) == 1 ? 0 : cell - 1;

			if (atomic_compare_exchange_weak_explicit(&line[i], &cell, less,
								  memory_order_relaxed,
								  memory_order_relaxed))
				return;
		}
	}
}

static uint64_t line_sum(_Atomic uint64_t *line, uint64_t h)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < LINE_CELLS; i++) {
		uint64_t cell = atomic_load_explicit(&line[i], memory_order_relaxed);

		sum += cell_is_of(cell, h) ? cell & COUNT_MASK : 0;
	}
	return sum;
}

/*
 * All of these are relaxed: nothing else is published with a count, and whoever finds an old
 * one has the exchange fail and looks again.
 */

/* Adds one unless that would be more than @max. */
static bool counter_take(_Atomic uint64_t *count, uint64_t max)
{
	uint64_t n = atomic_load_explicit(count, memory_order_relaxed);

	while (n < max)
		if (atomic_compare_exchange_weak_explicit(count, &n, n + 1, memory_order_relaxed,
							  memory_order_relaxed))
			return true;
	return false;
}

static void counter_give_back(_Atomic uint64_t *count)
{
	atomic_fetch_sub_explicit(count, 1, memory_order_relaxed);
}

/* Counts for one address; false when that would be one too many. */
static bool enter_address(struct admission *a, const struct sock_peer *peer, uint64_t max_per_ip)
{
	uint64_t h = peer_digest(a, peer);

	/* Peers of a unix socket have no address; who found no cell isn't counted: see the note. */
	if (peer->is_unix || !line_count_up(line_of(a, h), h))
		return true;
	/* Counted before it is looked at: two workers at the limit let in none too many. */
	if (!max_per_ip || line_sum(line_of(a, h), h) <= max_per_ip)
		return true;
	line_count_down(line_of(a, h), h);
	return false;
}

static void leave_address(struct admission *a, const struct sock_peer *peer)
{
	uint64_t h = peer_digest(a, peer);

	if (!peer->is_unix)
		line_count_down(line_of(a, h), h);
}

int admission_enter(struct admission *a, const struct sock_peer *peer, uint64_t max_total,
		    uint64_t max_per_ip)
{
	/* What the total took is given back where its address has too many. */
	if (!counter_take(&a->total, max_total))
		return ADMISSION_E_FULL;
	if (enter_address(a, peer, max_per_ip))
		return 0;
	counter_give_back(&a->total);
	return ADMISSION_E_PER_IP;
}

int admission_move(struct admission *a, const struct sock_peer *from, const struct sock_peer *to,
		   uint64_t max_per_ip)
{
	/* In before out: a connection that is refused still counts for whom it came from. */
	if (!enter_address(a, to, max_per_ip))
		return ADMISSION_E_PER_IP;
	leave_address(a, from);
	return 0;
}

void admission_leave(struct admission *a, const struct sock_peer *peer)
{
	counter_give_back(&a->total);
	leave_address(a, peer);
}

bool admission_enter_refused(struct admission *a)
{
	return counter_take(&a->refused, ADMISSION_REFUSED_MAX);
}

void admission_leave_refused(struct admission *a)
{
	counter_give_back(&a->refused);
}
