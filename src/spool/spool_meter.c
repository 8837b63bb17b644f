/* SPDX-License-Identifier: MIT */
#include "spool/spool_meter.h"

#include <sys/statvfs.h>

#include "base/clock.h"
#include "spool/spool_file.h"

#define RECOUNT_NS (2 * NS_PER_S)
#define RECOUNT_SHARE 10                /* of the time at most one part is for counting */
#define LOOK_BYTES (1024 * 1024)        /* written between two looks at the disk */
#define CLIENT_MARK (UINT64_C(1) << 63) /* no address has it: see spool_owner */

/* ------------------------------------------------------------------------------- sizes */

static void meter_count(struct spool_meter *m)
{
	uint64_t began = clock_now_ns(), now;

	/* A directory that cannot be read refuses nobody: writing will say what is wrong. */
	if (spool_file_sum_bytes(m->dir_fd, &m->bytes) < 0)
		m->bytes = 0;
	m->is_counted = true;
	now = clock_now_ns();
	m->recount_ns = now + MAX((now - began) * RECOUNT_SHARE, RECOUNT_NS);
}

/* Whether @n more bytes are within spool_max_size. */
static bool meter_has_room(struct spool_meter *m, uint64_t n)
{
	uint64_t max = m->limits.max_bytes;

	if (!max) {
		m->is_counted = false; /* nothing is added from here on */
		return true;
	}
	if (!m->is_counted)
		meter_count(m);
	if (n <= max && m->bytes <= max - n)
		return true;
	/* Whoever takes the files away doesn't tell us. */
	if (clock_now_ns() >= m->recount_ns)
		meter_count(m);
	return n <= max && m->bytes <= max - n;
}

/* Whether the disk has enough left behind @n more bytes. Looks only now and then. */
static bool meter_disk_has_room(struct spool_meter *m, uint64_t n, bool must_look)
{
	struct statvfs st;
	uint64_t least, has;

	m->unlooked += n;
	if (!m->limits.min_free || (!must_look && m->unlooked < LOOK_BYTES))
		return true;
	m->unlooked = 0;
	if (fstatvfs(m->dir_fd, &st) < 0)
		return true;
	/* Of what there is for us: blocks that are kept for root are neither. */
	least = st.f_blocks / 100 * m->limits.min_free * st.f_frsize;
	has = st.f_bavail * st.f_frsize;
	return has >= n && has - n >= least;
}

enum spool_refusal spool_meter_grow(struct spool_meter *m, uint64_t bytes, uint64_t n)
{
	uint64_t max = m->limits.max_file_bytes;

	if (max && (n > max || bytes > max - n))
		return SPOOL_R_FILE_SIZE;
	if (!meter_has_room(m, n))
		return SPOOL_R_SIZE;
	if (!meter_disk_has_room(m, n, false))
		return SPOOL_R_FREE;
	m->bytes += n;
	return SPOOL_NOT_REFUSED;
}

void spool_meter_shrink(struct spool_meter *m, uint64_t bytes)
{
	m->bytes -= MIN(bytes, m->bytes);
}

/* ------------------------------------------------------------------------------- rates */

/*
 * Counts a file for @whom; false past @limit in this second. Cells are shared by whoever falls
 * into them: the last one has it, and the one before begins anew, which does nobody wrong.
 */
static bool rate_count(struct spool_meter *m, uint64_t whom, uint32_t second, uint64_t limit)
{
	struct spool_rate *cell =
		&m->rate[(whom * 0x9e3779b97f4a7c15ULL >> 32) & (SPOOL_RATE_CELLS - 1)];

	if (!limit || !whom)
		return true;
	if (cell->whom != whom || cell->second != second)
		*cell = (struct spool_rate){.whom = whom, .second = second};
	if (cell->files >= limit)
		return false;
	cell->files++;
	return true;
}

enum spool_refusal spool_meter_begin(struct spool_meter *m, struct spool_owner owner,
				     uint64_t announced)
{
	uint64_t client = CLIENT_MARK | (owner.serial * SPOOL_MAX_WORKERS + owner.worker);
	uint32_t second = (uint32_t)(clock_now_ns() / NS_PER_S);

	if (!rate_count(m, client, second, m->limits.client_files) ||
	    !rate_count(m, owner.address, second, m->limits.address_files))
		return SPOOL_R_RATE;
	if (m->limits.max_file_bytes && announced > m->limits.max_file_bytes)
		return SPOOL_R_FILE_SIZE;
	if (!meter_has_room(m, announced))
		return SPOOL_R_SIZE;
	if (!meter_disk_has_room(m, 0, true))
		return SPOOL_R_FREE;
	return SPOOL_NOT_REFUSED;
}
