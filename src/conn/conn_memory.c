/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "conn/conn_private.h"

#define READ_BUFFER_BYTES (128 * 1024)
#define DECODER_BYTES 4608         /* of memory */
#define INFLATER_BYTES (48 * 1024) /* of memory, without what comes out */

/* ------------------------------------------------------ what a worker's connections share */

int conn_env_init(struct conn_env *env)
{
	list_init(&env->all);
	list_init(&env->walkers);
	list_init(&env->to_read);
	list_init(&env->to_read_next);
	list_init(&env->to_open);
	list_init(&env->to_write);
	list_init(&env->to_catch_up);
	list_init(&env->stalled);
	list_init(&env->unsent);
	list_init(&env->partial_inputs);
	env->read_buffer_bytes = READ_BUFFER_BYTES;
	env->read_buffer = malloc(env->read_buffer_bytes);
	return env->read_buffer ? 0 : -ENOMEM;
}

void conn_env_fini(struct conn_env *env)
{
	while (env->n_decoders > 0)
		ws_decoder_free(env->decoders[--env->n_decoders]);
	while (env->n_outputs > 0)
		free(env->outputs[--env->n_outputs]);
	env->inflater = inflater_free(env->inflater);
	free(env->read_buffer);
	env->read_buffer = NULL;
}

/* ---------------------------------------------------------------- decoders and inflaters */

struct ws_decoder *conn_take_decoder(const struct conn *c)
{
	struct conn_env *env = c->env;
	uint8_t allowed = c->deflate_window ? WS_RSV1 : 0;
	struct ws_decoder *d;

	if (env->n_decoders == 0)
		return ws_decoder_new(WS_SERVER, allowed);
	d = env->decoders[--env->n_decoders];
	return ws_decoder_reset(d, allowed) ? ws_decoder_free(d) : d;
}

void conn_give_decoder(struct conn_env *env, struct ws_decoder *d)
{
	/* One that stopped within a frame needs a new context, for which there may be no memory. */
	if (env->n_decoders == CONN_DECODERS || ws_decoder_reset(d, 0))
		ws_decoder_free(d);
	else
		env->decoders[env->n_decoders++] = d;
}

struct inflater *conn_take_inflater(struct conn_env *env)
{
	struct inflater *z = TAKE_PTR(env->inflater);

	return z ? z : inflater_new();
}

void conn_give_inflater(struct conn_env *env, struct inflater *z)
{
	/* One is enough: nearly all messages are inflated within one turn. */
	if (env->inflater) {
		inflater_free(z);
		return;
	}
	inflater_reset(z);
	env->inflater = z;
}

/* -------------------------------------------------------------------------- partial input */

struct conn_input *conn_input_of(struct conn *c)
{
	if (c->input)
		return c->input;
	c->input = calloc(1, sizeof(*c->input));
	if (!c->input)
		return NULL;
	c->input->conn = c;
	list_add_tail(&c->env->partial_inputs, &c->input->node);
	return c->input;
}

void conn_input_went_on(struct conn_input *in)
{
	in->arrived = 0;
	list_del(&in->node);
	list_add_tail(&in->conn->env->partial_inputs, &in->node);
}

static size_t input_bytes(const struct conn_input *in)
{
	size_t bytes = sizeof(*in) + in->message.cap + in->parked.cap;

	if (in->decoder)
		bytes += DECODER_BYTES;
	if (in->inflater)
		bytes += INFLATER_BYTES + inflater_output(in->inflater)->cap;
	if (in->work)
		bytes += in->work->bytes;
	return bytes;
}

static void input_account_bytes(struct conn_input *in, size_t bytes)
{
	struct conn_env *env = in->conn->env;

	/* Less than before is a difference that wraps, in the sum as in the gauge. */
	env->reassembly_bytes += bytes - in->accounted;
	METRIC_ADD(env->metrics, reassembly_bytes, (uint64_t)bytes - in->accounted);
	in->accounted = bytes;
}

void conn_input_account(struct conn_input *in)
{
	input_account_bytes(in, input_bytes(in));
}

void conn_drop_input(struct conn *c)
{
	struct conn_input *in = TAKE_PTR(c->input);

	if (!in)
		return;
	input_account_bytes(in, 0);
	list_del(&in->node);
	if (in->decoder)
		conn_give_decoder(c->env, in->decoder);
	if (in->inflater)
		conn_give_inflater(c->env, in->inflater);
	if (in->work)
		c->env->ops->free_work(c->env, in->work);
	c->pauses &= (uint8_t)~CONN_PAUSE_WORK;
	buf_fini(&in->message);
	buf_fini(&in->parked);
	free(in);
}

/* ------------------------------------------------------------------------- waiting output */

const struct conn_output conn_no_output;

void conn_init_output(struct conn *c)
{
	/* Without its const, since others have one of their own; this one is never written to. */
	c->out = (struct conn_output *)(uintptr_t)&conn_no_output;
}

struct conn_output *conn_output_of(struct conn *c)
{
	struct conn_env *env = c->env;
	struct conn_output *out;

	if (c->out != &conn_no_output)
		return c->out;
	out = env->n_outputs > 0 ? env->outputs[--env->n_outputs] : malloc(sizeof(*out));
	if (!out)
		return NULL;
	*out = (struct conn_output){0};
	c->out = out;
	return out;
}

void conn_give_output(struct conn *c)
{
	struct conn_env *env = c->env;

	if (c->out == &conn_no_output)
		return;
	if (env->n_outputs < CONN_OUTPUTS)
		env->outputs[env->n_outputs++] = c->out;
	else
		free(c->out);
	conn_init_output(c);
}

void conn_drop_output(struct conn *c)
{
	struct frame *f = c->out->queue;

	while (f) {
		struct frame *next = f->next;

		f->next = NULL;
		frame_unref(f);
		f = next;
	}
	frame_unref(c->out->transit);
	conn_give_output(c);
}
