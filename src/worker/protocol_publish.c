/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <systemd/sd-id128.h>

#include "base/text.h"
#include "wire/ws.h"
#include "worker/hub.h"
#include "worker/protocol.h"
#include "worker/protocol_private.h"

/* Between two looks at the clock, and how many of these bytes count as one that is worked on. */
#define CHECK_STEP ((size_t)256 * 1024)
#define CHECKED_PER_WORK 16
#define COPY_STEP ((size_t)256 * 1024)
#define COPIED_PER_WORK 4
#define FORMS_STEP ((size_t)4096)
#define DIGEST_STEP ((size_t)64 * 1024)
#define DIGESTED_PER_WORK 2

#define PLACE_MORE ((size_t)1024)      /* that may be said of a message, or put into it */
#define UNPACKED_PER_FRAME (16 * 1024) /* for others: so many bytes cost the sender a frame */

static_assert(MSG_USER_MAX == GRANT_USER_MAX, "any grant's user id");
static_assert(MSG_CHANNEL_MAX == DIRECTORY_NAME_MAX, "any channel's name");

/* -------------------------------------------------------------------- what varies */

static void set_packing(struct frame *f, const struct config *config,
			const Websocket__BinaryData *binary)
{
	size_t n = binary->data.len;

	if (binary->compression == WEBSOCKET__COMPRESSION_TYPE__NONE) {
		if (config->enable_compression && n > 0 && n >= config->compression_threshold &&
		    n <= config->compression_max_size)
			f->flags |= FRAME_CAN_PACK;
	} else if (zip_is_codec(binary->compression)) {
		/* What an unknown codec has packed goes to all as it is. */
		f->flags |= FRAME_IS_PACKED;
		f->packed_with = (uint8_t)binary->compression;
	}
}

/*
 * Says in its flags whether receivers may need different variants of it; @m: NULL for text. Before
 * the frame is published: its flags are frozen from there on.
 */
static void set_variants(struct frame *f, const struct hub *h, const message *m)
{
	if (m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
		set_packing(f, h->env.config, m->binary);
	if (f->flags & FRAME_IS_PACKED || frame_can_deflate(&h->maker, frame_payload_len(f)))
		f->flags |= FRAME_CAN_DEFLATE;
}

/* The lobby has no name, and a text no room for one. */
static bool needs_name(const message *m, const char *channel)
{
	return m && !message_names_channel(m) && channel[0];
}

/*
 * A message that will be kept is made where it will lie; without room there it is made like any
 * other, and history sees what can be done. @n: of the payload.
 */
WB_COLD static struct frame *frame_kept_for(struct hub *h, struct publication *pub, size_t n)
{
	struct publication_place *place = &pub->place;
	size_t max_frame = h->env.config->max_frame_size;
	struct shm_slot *slot = TAKE_PTR(place->slot);

	if (!slot && !place->is_done)
		slot = frame_place(place->heap, n, max_frame, place->has_key);
	if (slot &&
	    !shm_heap_commit(place->heap, slot, frame_kept_bytes(n, max_frame, place->has_key))) {
		shm_heap_free(place->heap, slot);
		slot = NULL;
	}
	return slot ? frame_new_kept(place->heap, slot, place->has_key, WS_BINARY, n, max_frame,
				     &h->unpublished_bytes)
		    : frame_new(WS_BINARY, n, max_frame, &h->unpublished_bytes);
}

/* Room for the bytes as they came, with what is said behind them. */
static struct frame *frame_for(struct hub *h, struct publication *pub, const message *m, size_t n)
{
	const struct msg_said *said = &pub->said;
	uint8_t suffix[MSG_SUFFIX_MAX];
	size_t more = WB_LIKELY(said->channel) || msg_says(said) ? msg_suffix(suffix, said) : 0;
	struct frame *f = WB_UNLIKELY(pub->is_kept)
				  ? frame_kept_for(h, pub, n + more)
				  : frame_new(m ? WS_BINARY : WS_TEXT, n + more,
					      h->env.config->max_frame_size, &h->unpublished_bytes);

	if (f)
		frame_write(f, n, suffix, more);
	return f;
}

/* ------------------------------------------------------------------------ of clients */

/* Who a client has to be, where it says something else; or NULL. */
static const char *user_to_put_in(const struct conn *c, const message *m)
{
	bool is_other = m && m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE && c->grant &&
			strcmp(m->chat->user_id, c->grant->user_id) != 0;

	return is_other ? c->grant->user_id : NULL;
}

void publication_fini(struct publication *pub)
{
	frame_forms_fini(&pub->forms);
	if (WB_UNLIKELY(pub->is_kept) && pub->place.slot)
		shm_heap_free(pub->place.heap, pub->place.slot);
	frame_unref(pub->f);
}

size_t publication_bytes(const struct publication *pub)
{
	/* The frame is the message once more: while it is copied, it counts as one. */
	return frame_forms_bytes(&pub->forms);
}

/* The checksum of the data as carried. False: there is more to be looked at. */
static bool check_on(struct conn_env *env, struct publication *pub, const message *m)
{
	const Websocket__BinaryData *b = m->binary;

	while (b->checksum[0] && pub->checked < b->data.len) {
		size_t n = MIN(b->data.len - pub->checked, CHECK_STEP);

		if (!conn_may_work(env))
			return false;
		pub->crc = msg_crc32_on(pub->crc, b->data.data + pub->checked, n);
		pub->checked += n;
		if (n == CHECK_STEP)
			conn_charge_work(env, n / CHECKED_PER_WORK);
	}
	return true;
}

/* The message is copied to where it is sent from. False: there is more of it. */
static bool copy_on(struct conn_env *env, struct publication *pub)
{
	while (pub->at_piece < pub->n_pieces) {
		const struct msg_piece *piece = &pub->piece[pub->at_piece];
		size_t left = piece->n - pub->copied, n = MIN(left, COPY_STEP);

		if (!conn_may_work(env))
			return false;
		frame_write(pub->f, piece->at + pub->copied, piece->p + pub->copied, n);
		pub->copied += n;
		if (n == left) {
			pub->at_piece++;
			pub->copied = 0;
		}
		if (n == COPY_STEP)
			conn_charge_work(env, n / COPIED_PER_WORK);
	}
	return true;
}

/*
 * Pages for a large message that will be kept. They come in steps, since each is cleared. False:
 * there are more of them.
 */
WB_COLD static bool place_on(struct hub *h, struct publication_place *place, size_t n)
{
	size_t bytes =
		frame_kept_bytes(n + PLACE_MORE, h->env.config->max_frame_size, place->has_key);

	if (n < SHM_STEP_BYTES || place->is_done)
		return true;
	if (!place->slot)
		place->slot = shm_heap_alloc(place->heap, bytes);
	while (place->slot && place->placed < bytes) {
		size_t to = MIN(place->placed + SHM_STEP_BYTES, bytes);

		if (!conn_may_work(&h->env))
			return false;
		if (!shm_heap_commit(place->heap, place->slot, to))
			shm_heap_free(place->heap, TAKE_PTR(place->slot));
		place->placed = to;
		conn_charge_work(&h->env, SHM_STEP_BYTES / COPIED_PER_WORK);
	}
	place->is_done = true;
	return true;
}

/* Its checksum, where it will lie in memory that outlives the process. False: there is more. */
WB_COLD static bool seal_on(struct conn_env *env, struct publication *pub)
{
	while (!frame_kept_seal(pub->f, &pub->place.sealed, CHECK_STEP)) {
		conn_charge_work(env, CHECK_STEP / CHECKED_PER_WORK);
		if (!conn_may_work(env))
			return false;
	}
	return true;
}

/* Whether a message is to be published once: its client says so, and its channel can tell. */
static bool wants_once(const struct conn *c, const struct publication *pub, const message *m)
{
	return c->caps & MSG_CAP_ONCE && pub->said.is_numbered && m &&
	       m->request_id.len == sizeof(pub->once.key.id);
}

/* What only the server may say is left out: how far it reads on from here. */
static size_t digest_part(struct publication *pub, const uint8_t *p, size_t n, size_t *ret_left_out)
{
	const struct msg_spots *spots = pub->spots;
	unsigned n_cuts = MIN(spots->n_cuts, (unsigned)MSG_CUTS);
	size_t end = n;

	*ret_left_out = 0;
	if (pub->at_cut < n_cuts) {
		const struct msg_cut *cut = &spots->cut[pub->at_cut];

		end = (size_t)(cut->p - p);
		*ret_left_out = (size_t)(cut->end - cut->p);
	}
	return end - pub->digested;
}

/* The bytes that its sender wrote, but for what marks a resend. False: there are more. */
static bool digest_on(struct conn_env *env, struct publication *pub, const uint8_t *p, size_t n)
{
	while (pub->digested < n) {
		size_t left_out, part = digest_part(pub, p, n, &left_out);
		size_t step = MIN(part, DIGEST_STEP);

		if (!conn_may_work(env))
			return false;
		siphash_add(&pub->digest, p + pub->digested, step);
		pub->digested += step;
		if (step == part) {
			pub->digested += left_out;
			pub->at_cut++;
		}
		if (step == DIGEST_STEP)
			conn_charge_work(env, step / DIGESTED_PER_WORK);
	}
	return true;
}

/* By what it is known again. False: there is more to be looked at. */
static bool once_on(struct conn *c, struct publication *pub, const message *m, const uint8_t *p,
		    size_t n)
{
	if (pub->is_once)
		return true;
	if (!pub->is_digesting) {
		pub->is_digesting = true;
		pub->digested = 0;
		pub->at_cut = 0;
		siphash_begin(&pub->digest, &hub_of(c)->shared->history.digest_key);
	}
	if (!digest_on(c->env, pub, p, n))
		return false;
	pub->is_once = true;
	pub->once = (struct history_once){
		.key.digest = siphash_end(&pub->digest),
		.is_resend = pub->spots->is_resend,
		.known = pub->spots->known,
	};
	memcpy(pub->once.key.id, m->request_id.data, sizeof(pub->once.key.id));
	return true;
}

/* It was not published, for what pub->once says. */
WB_COLD static enum publication_result tell_outcome(struct conn *c, const struct publication *pub,
						    const message *m, const char *channel)
{
	switch (pub->once.outcome) {
	case HISTORY_DUPLICATE:
		METRIC_INC(c->env->metrics, history_duplicates);
		return PUBLICATION_DONE;
	case HISTORY_UNKNOWN:
		METRIC_INC(c->env->metrics, history_unknown);
		protocol_refuse_in(c, m, 409, "outcome unknown", channel);
		return PUBLICATION_REFUSED;
	default:
		protocol_refuse(c, m, 503, "out of memory");
		return PUBLICATION_REFUSED;
	}
}

/* Packed again: of a message that has some field again and again. */
static struct frame *frame_repacked(struct hub *h, const message *m, const struct msg_said *said,
				    const char *user_id)
{
	uint8_t suffix[MSG_SUFFIX_MAX];
	struct msg_builder b;

	msg_init_stamp(&b, m, user_id);
	return frame_from_msg_said(&b, suffix, msg_suffix(suffix, said),
				   h->env.config->max_frame_size, &h->unpublished_bytes);
}

/* Without what a client may not say, and with the user id of who has to be somebody. */
static struct frame *frame_stamped(struct hub *h, struct publication *pub, const message *m,
				   const struct msg_stamp *s)
{
	struct frame *f = frame_for(h, pub, m, s->bytes);

	if (!f)
		return NULL;
	if (s->user_id_n) {
		frame_write(f, s->length_at, s->length, s->length_n);
		frame_write(f, s->user_id_at, s->user_id, s->user_id_n);
	}
	for (; pub->n_pieces < s->n_pieces; pub->n_pieces++)
		pub->piece[pub->n_pieces] = s->piece[pub->n_pieces];
	return f;
}

/* The frame itself. Return: 0, or the code that it is refused with. */
static uint32_t publication_begin_frame(struct hub *h, struct publication *pub, const message *m,
					const char *user_id, const uint8_t *p, size_t n)
{
	struct msg_stamp stamp;

	if (!user_id && (!m || pub->spots->n_cuts == 0)) {
		pub->f = frame_for(h, pub, m, n);
		pub->piece[0] = (struct msg_piece){p, n, 0};
		pub->n_pieces = 1;
	} else if (msg_stamp_init(&stamp, pub->spots, p, n, user_id)) {
		pub->f = frame_stamped(h, pub, m, &stamp);
	} else if (n <= PROTOCOL_AT_ONCE_BYTES) {
		pub->f = frame_repacked(h, m, &pub->said, user_id);
	} else {
		return 413;
	}
	return pub->f ? 0 : 503;
}

/* It was begun before its channel had a history, or after: it is made once more. */
WB_COLD static enum publication_result publication_begin_anew(struct publication *pub)
{
	const struct msg_spots *spots = pub->spots;

	publication_fini(pub);
	publication_init(pub);
	pub->spots = spots;
	return PUBLICATION_MORE;
}

/* Who has published it, and where it stands. */
WB_COLD static void publication_stamp(struct publication *pub, struct conn *c, const message *m,
				      const struct channel *ch)
{
	if (ch->stamps_sender)
		pub->said.sender = c->id;
	if (!ch->has_history)
		return;
	pub->said.sent_ms = (int64_t)clock_wall_ms();
	pub->said.is_numbered = true;
	/* What was begun of it in an earlier turn stays. */
	if (!pub->is_kept)
		pub->place =
			(struct publication_place){.heap = &hub_of(c)->shared->history.file.heap};
	pub->is_kept = true;
	pub->place.has_key = wants_once(c, pub, m);
}

/* What is said of a client's message; of a text nothing can be. */
static void publication_begin_said(struct publication *pub, struct conn *c, const message *m,
				   const struct channel *ch)
{
	pub->said = (struct msg_said){
		.channel = needs_name(m, ch->entry->name) ? ch->entry->name : NULL,
	};
	if (WB_UNLIKELY(ch->is_stamped) && m)
		publication_stamp(pub, c, m, ch);
}

/* What members can't take as it is, or better otherwise; the sender gets nothing of it. */
static void publication_begin_forms(struct hub *h, struct publication *pub, const message *m,
				    struct directory_entry *e,
				    const struct directory_reader *except)
{
	unsigned variants;

	set_variants(pub->f, h, m);
	if (!frame_varies(pub->f))
		return;
	variants = directory_variants(e, pub->f, except);
	if (variants)
		frame_forms_init(&pub->forms, pub->f, m, &pub->said, variants, &h->maker);
}

/* What members need is made. Return: 0 | FRAME_FORMS_ | -ENOMEM. */
static int forms_on(struct conn *c, struct publication *pub)
{
	int r = pub->forms.left ? FRAME_FORMS_MORE : 0;

	while (r == FRAME_FORMS_MORE && conn_may_work(c->env)) {
		uint64_t before = pub->forms.worked;
		size_t budget = FORMS_STEP;

		r = frame_forms_run(&pub->forms, &budget);
		conn_charge_work(c->env, (size_t)(pub->forms.worked - before));
	}
	/* Also for what came to nothing: it was as much work. */
	if (r != FRAME_FORMS_MORE)
		conn_charge_frames(c, (size_t)(pub->forms.unpacked / UNPACKED_PER_FRAME));
	return r;
}

static void refuse_forms(struct conn *c, const message *m, int r)
{
	const struct config *config = c->env->config;
	size_t limit = frame_unpack_limit(&hub_of(c)->maker, m->binary->data.len);

	if (r == FRAME_FORMS_E_TOO_BIG)
		protocol_refuse_for_limit(c, m, 422,
					  limit == config->max_message_size
						  ? "max_message_size"
						  : "compression_max_size",
					  NULL);
	else if (r == FRAME_FORMS_E_CORRUPT)
		protocol_refuse(c, m, 422, "the compressed data cannot be unpacked");
	else
		protocol_refuse(c, m, 503, "out of memory");
}

enum publication_result protocol_publish_run(struct conn *c, struct publication *pub,
					     const message *m, struct member *through,
					     const uint8_t *p, size_t n)
{
	const struct directory_reader self = {c->caps, c->deflate_window};
	struct directory_entry *e = through->channel->entry;
	bool is_binary = m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA;
	uint32_t code;
	int r;

	if (!pub->f) {
		if (is_binary && !check_on(c->env, pub, m))
			return PUBLICATION_MORE;
		if (is_binary && m->binary->checksum[0] &&
		    !msg_checksum_matches(m->binary->checksum, pub->crc)) {
			protocol_refuse_result(c, m, 422, MSG_BAD_CHECKSUM);
			return PUBLICATION_REFUSED;
		}
		publication_begin_said(pub, c, m, through->channel);
		if (WB_UNLIKELY(pub->is_kept) && !place_on(hub_of(c), &pub->place, n))
			return PUBLICATION_MORE;
		code = publication_begin_frame(hub_of(c), pub, m, user_to_put_in(c, m), p, n);
		if (code) {
			protocol_refuse(c, m, code,
					code == 503 ? "out of memory"
						    : "too long for a payload in pieces");
			return PUBLICATION_REFUSED;
		}
	}
	if (!copy_on(c->env, pub))
		return PUBLICATION_MORE;
	if (WB_UNLIKELY(wants_once(c, pub, m)) && !once_on(c, pub, m, p, n))
		return PUBLICATION_MORE;
	if (!pub->is_complete)
		publication_begin_forms(hub_of(c), pub, m, e, &self);
	pub->is_complete = true;
	r = forms_on(c, pub);
	if (r == FRAME_FORMS_MORE)
		return PUBLICATION_MORE;
	if (r) {
		refuse_forms(c, m, r);
		return PUBLICATION_REFUSED;
	}
	/* log_memory is for what waits to be sent: until here it was the sender's own. */
	if (WB_LIKELY(!(through->channel->has_history | pub->said.is_numbered))) {
		frame_set_account(pub->f, c->env->frame_account);
	} else if (!m) {
		hub_reserve_number(hub_of(c), e);
		frame_set_account(pub->f, c->env->frame_account);
	} else if (through->channel->has_history != pub->said.is_numbered) {
		return publication_begin_anew(pub);
	} else {
		if (frame_is_kept(pub->f) && !seal_on(c->env, pub))
			return PUBLICATION_MORE;
		pub->f->flags |= FRAME_NUMBERED;
	}
	if (!hub_publish(hub_of(c), e, TAKE_PTR(pub->f), through, pub->is_once ? &pub->once : NULL))
		return tell_outcome(c, pub, m, e->name);
	return PUBLICATION_DONE;
}

/* ------------------------------------------------------------- of the administrator */

/* What is said of it: it has no sender. */
static struct msg_said said_by_admin(const struct hub_outlet *o, bool names_channel)
{
	return (struct msg_said){
		.channel = names_channel ? NULL : o->entry->name,
		.sent_ms = (int64_t)clock_wall_ms(),
		.is_numbered = o->has_history,
	};
}

static struct frame *frame_of_system(struct hub *h, const struct hub_outlet *o, const uint8_t *p,
				     size_t n)
{
	WB_CLEANUP(ptr_freep) char *content = strndup((const char *)p, n);
	const struct msg_said said = said_by_admin(o, !o->entry->name[0]);
	uint8_t suffix[MSG_SUFFIX_MAX];
	struct msg_builder b;
	sd_id128_t random;
	char id[37];

	/* Its user id is `system`, which no client may use. */
	if (!content)
		return NULL;
	if (sd_id128_randomize(&random) < 0)
		random = SD_ID128_NULL;
	uuid4_format(id, random.bytes);
	msg_init_chat(&b, id, "system", content, said.sent_ms / 1000);
	return frame_from_msg_said(&b, suffix, msg_suffix(suffix, &said),
				   h->env.config->max_frame_size, h->env.frame_account);
}

/* Why a message of the administrator's cannot be published; NULL: it can. */
static const char *message_flaw(const message *m, const char *channel)
{
	enum msg_result result = msg_check_binary(m);

	if (result != MSG_OK)
		return msg_result_text(result);
	if (m->type != WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE &&
	    m->type != WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
		return "only CHAT_MESSAGE and BINARY_DATA can be published";
	if (message_names_channel(m) && strcmp(m->channel, channel) != 0)
		return "the message names another channel";
	return NULL;
}

/* A message of the administrator's as a frame, with what members need instead of it. */
static struct frame *frame_of_admin(struct hub *h, const struct hub_outlet *o, const message *m,
				    const struct msg_spots *spots, const uint8_t *p, size_t n,
				    const char **ret_flaw)
{
	struct publication pub = {
		.spots = spots,
		.is_kept = o->has_history,
		.place.heap = &h->shared->history.file.heap,
		.said = said_by_admin(o, !needs_name(m, o->entry->name)),
	};
	size_t budget = SIZE_MAX; /* that is never used up: it is one task, whoever waits */
	int r = 0;

	*ret_flaw = NULL;
	if (publication_begin_frame(h, &pub, m, NULL, p, n) == 413)
		*ret_flaw = "too long for fields in pieces";
	if (pub.f) {
		for (unsigned i = 0; i < pub.n_pieces; i++)
			frame_write(pub.f, pub.piece[i].at, pub.piece[i].p, pub.piece[i].n);
		publication_begin_forms(h, &pub, m, o->entry, NULL);
		r = frame_forms_run(&pub.forms, &budget);
	}
	if (r == FRAME_FORMS_E_CORRUPT || r == FRAME_FORMS_E_TOO_BIG)
		*ret_flaw = "members need the data unpacked, and it cannot be";
	if (r)
		pub.f = frame_unref(pub.f);
	frame_forms_fini(&pub.forms);
	if (pub.f)
		frame_set_account(pub.f, h->env.frame_account);
	return pub.f;
}

/* What is to be published: a text, or a message that was decoded. */
struct admin_words {
	bool is_text;
	const uint8_t *p;
	size_t n;
	struct msg_decoder decoder;
	message *m;
};

/* Why that can't be published; NULL: it can, if the channel is there. */
static const char *words_read(struct hub *h, struct admin_words *w, const char *channel)
{
	size_t budget = SIZE_MAX; /* that nothing of this size uses up */
	enum msg_result result;

	if (w->is_text)
		return w->n > 0 && memchr(w->p, 0, w->n) ? "the text has a NUL" : NULL;
	/* No client's message is being looked at: this is a task, between two of them. */
	arena_reset(&h->arena);
	result = msg_decoder_begin(&w->decoder, &h->arena, w->p, w->n, SIZE_MAX);
	if (result == MSG_OK)
		result = msg_decoder_run(&w->decoder, &budget, &w->m);
	if (result != MSG_OK)
		return msg_result_text(result);
	msg_drop_cuts(w->m, &w->decoder.spots);
	return message_flaw(w->m, channel);
}

static struct protocol_published words_publish(struct hub *h, const struct admin_words *w,
					       const struct hub_outlet *o)
{
	struct protocol_published done = {.status = 400};
	struct frame *f = w->is_text ? frame_of_system(h, o, w->p, w->n)
				     : frame_of_admin(h, o, w->m, &w->decoder.spots, w->p, w->n,
						      &done.reason);

	if (done.reason)
		return done;
	if (!f)
		return (struct protocol_published){.status = 503, .reason = "out of memory"};
	f->flags |= o->has_history ? FRAME_NUMBERED : 0;
	if (hub_outlet_publish(h, o, f, &done.members) == 0)
		return (struct protocol_published){.status = 200, .members = done.members};
	frame_unref(f);
	return (struct protocol_published){.status = 503, .reason = "busy, try again"};
}

struct protocol_published protocol_publish(struct hub *h, const char *channel, bool is_text,
					   const uint8_t *p, size_t n)
{
	struct admin_words w = {.is_text = is_text, .p = p, .n = n};
	const char *flaw = words_read(h, &w, channel);
	struct protocol_published done;
	struct hub_outlet o;
	int r;

	if (flaw)
		return (struct protocol_published){.status = 400, .reason = flaw};
	r = hub_outlet_init(h, channel, strlen(channel), &o);
	if (r < 0)
		return (struct protocol_published){.status = 503, .reason = "out of memory"};
	if (r)
		return (struct protocol_published){404, "the channel has no members", 0};
	done = words_publish(h, &w, &o);
	hub_outlet_fini(h, &o);
	return done;
}
