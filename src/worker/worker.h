/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The worker threads: each with its loop, its listeners, its connections and its
 * hub; and the little that main and they say to each other.
 *
 * main talks to a worker by tasks: a function to be run on the worker's thread and
 * one to be run back on main when it is done. Both ways are intrusive lists with
 * an atomic head (any thread pushes, one takes all), so that handing over a task
 * cannot fail. Whoever makes a task owns its memory; it is back when done() runs.
 *
 * Stopping goes in two steps, so that nothing that was accepted is lost: first
 * every worker stops accepting and reading, and empties its outboxes; when all
 * have, each sends what waits and says goodbye to its clients.
 */

#include <pthread.h>

#include "worker/hub.h"

#define WORKER_MAX_LISTENERS 16

struct worker;
struct worker_pool;
struct worker_task;

typedef void worker_task_fn(struct worker *w, struct worker_task *t);
typedef void worker_done_fn(struct worker_task *t);

struct WB_VALUE worker_task {
	struct worker_task *next;
	worker_task_fn *run;  /* on the worker's thread */
	worker_done_fn *done; /* on main's thread; NULL: nobody waits, @run frees it */
};

/* Many pushers, one taker. */
struct WB_SHARED worker_tasks {
	_Atomic(struct worker_task *) head; /* newest first */
};

enum worker_listener_kind {
	LISTENER_PLAIN,     /* of host and port */
	LISTENER_TLS,       /* of host and tls_port: connections begin with TLS */
	LISTENER_UNIX,      /* of listen_unix; all workers have copies of one */
	LISTENER_ACTIVATED, /* by socket activation */
	LISTENER_N_KINDS,
};

struct WB_OWNER(worker) worker_listener {
	struct reactor_source source;
	struct worker *worker;
	int fd;
	enum worker_listener_kind kind;
	bool is_on; /* in epoll */
};

/* A listening socket from before this process. */
struct WB_VALUE worker_socket {
	int fd;
	enum worker_listener_kind kind;
};

/*
 * phase            accepts  reads        sends             ends with
 * SERVING          yes      yes          yes               worker_task_stand_still(), _stop_reading
 * STANDING_STILL   no       no           yes               worker_task_freeze(); worker_resume()
 *                                                          goes back to SERVING
 * NOT_READING      no, has  no           yes               worker_task_say_goodbye()
 *                  no listeners
 * SAYING_GOODBYE   no       only Closes  what waits, then  worker_task_end_loop(), which main
 *                                        the goodbye       posts once all are gone, or too late
 * ENDED            no       no           no                the thread, which leaves its loop
 *
 * Connections with TLS may be told goodbye while the others are served: has_no_tls.
 */
enum worker_phase {
	WORKER_SERVING,
	WORKER_STANDING_STILL,
	WORKER_NOT_READING,
	WORKER_SAYING_GOODBYE,
	WORKER_ENDED,
};

/* What stopping and handing over wait for; each task is answered once, and NULL after that. */
struct WB_OWNER(worker) worker_stop {
	struct worker_task *when_posted;   /* when nothing is on its way to other workers */
	struct worker_task *when_tls_gone; /* when no connection has TLS any more */
	struct worker_task *when_gone;     /* when all connections are gone */
	struct wheel_timer goodbye;        /* the next of these two */
	uint64_t patience_ns;              /* until then, those that lag may catch up */
	uint64_t deadline_ns;              /* then, those that are left are aborted */
};

struct WB_OWNER(worker) worker {
	struct reactor reactor;
	struct metrics metrics;
	struct hub hub;
	struct slab conns;
	struct worker_pool *pool;
	struct worker_tasks inbox; /* shared: tasks for this worker */
	_Atomic uint32_t load;     /* shared: connections that are here, or on their way here */
	struct worker_listener listeners[WORKER_MAX_LISTENERS];
	unsigned n_listeners;
	struct wheel_timer tick;         /* once a second: gauges, lines left out */
	struct wheel_timer accept_again; /* after running out of descriptors */
	struct worker_stop stop;
	uint64_t next_serial;
	enum worker_phase phase;
	bool is_starved; /* accepting failed for want of descriptors or memory */
	bool has_no_tls; /* connections with TLS are not accepted any more */
	pthread_t thread WB_FROZEN;
	bool has_thread WB_FROZEN;
};

struct WB_SHARED worker_pool {
	struct hub_shared shared;
	struct worker *workers[DIRECTORY_MAX_WORKERS] WB_FROZEN;
	unsigned n WB_FROZEN;
	struct reactor *main_reactor WB_FROZEN;
	struct worker_tasks done;    /* tasks on their way back to main */
	uint16_t port WB_FROZEN;     /* that the workers listen on; 0: only sockets handed over */
	uint16_t tls_port WB_FROZEN; /* 0: none */
	char *unix_path WB_FROZEN;   /* of listen_unix: removed in the end; NULL: none */
};

/* What is there already. */
struct WB_VALUE worker_inherited {
	struct worker_socket *socket; /* @n listening sockets */
	unsigned n;
	int history_fd; /* for what channels keep, borrowed; -1: none, it goes with the process */
};

/**
 * worker_pool_new() - make workers that don't run yet, and open their listeners
 * @policy:   with the configuration; the caller's reference stays its own, each worker takes one
 * @n:        workers, 1 to DIRECTORY_MAX_WORKERS
 * @inherited: NULL: nothing. Sockets of socket activation stand for host and port; of the
 *            others, those are used which the configuration still wants, and are -1 then; the
 *            rest is for worker_pool_drain()
 * @main_reactor: woken when a task is done
 * @ret_key:  on failure: the key of the configuration that is to blame, or NULL
 *
 * Each worker gets as many sockets of a port as the others: where fewer are there, or more
 * for fewer workers, others are opened.
 *
 * Return:  0 | -errno of socket, bind, listen, epoll | -ENOMEM.
 * Owns:    the pool is the caller's; so are the sockets of @inherited that are not -1.
 * Thread:  main.
 */
int worker_pool_new(struct policy *policy, unsigned n, const struct worker_inherited *inherited,
		    struct reactor *main_reactor, struct worker_pool **ret, const char **ret_key)
	WB_NODISCARD;

/**
 * worker_pool_drain() - let those in who wait at listeners that are not used any more
 * @inherited: what worker_pool_new() has left of them; closed, and -1 then
 *
 * Before the start, and when the workers know all serials that were ever used.
 */
void worker_pool_drain(struct worker_pool *p, struct worker_socket *inherited,
		       unsigned n_inherited);

/*
 * What was left by a process before is taken over: from here on what channels keep is left for the
 * next one. Also when a hand-over has failed. Before the threads start.
 */
void worker_pool_serve(struct worker_pool *p);

/* Starts the threads. Return: 0 | -errno. */
int worker_pool_start(struct worker_pool *p) WB_NODISCARD;

/* Ends and joins the threads; what was posted meanwhile waits for worker_pool_finish_tasks(). */
void worker_pool_join(struct worker_pool *p);

/**
 * worker_pool_freeze() - end and join the threads, and leave everything as it is
 *
 * All workers stand still, and have answered. What was posted between them is in the logs
 * then.
 */
void worker_pool_freeze(struct worker_pool *p);

/* Goes on after it, with new threads. Return: 0 | -errno of epoll_ctl, pthread_create. */
int worker_pool_thaw(struct worker_pool *p) WB_NODISCARD;

/**
 * worker_pool_sockets() - the listening sockets, each once
 * @ret:    room for @max; borrowed
 *
 * Return:  how many.
 */
unsigned worker_pool_sockets(const struct worker_pool *p, struct worker_socket *ret, unsigned max);

/* After the threads have ended: runs, on main, every task that is left, and what comes back. */
void worker_pool_finish_tasks(struct worker_pool *p);

/* Joins if need be, frees everything. Accepts NULL. Return: NULL. */
struct worker_pool *worker_pool_free(struct worker_pool *p);

/* Runs a task on a worker. Thread: any. */
WB_ANY_THREAD void worker_post(struct worker *w, struct worker_task *t);

/* Runs what came back. Thread: main. */
void worker_pool_run_done(struct worker_pool *p);
bool worker_pool_has_done(struct worker_pool *p);

/* Tasks for worker_post(); most begin a phase of the table above. */

/* Stops accepting and reading; done when outboxes are empty. */
void worker_task_stop_reading(struct worker *w, struct worker_task *t);

/* The same for a while, so that everything can stand still. */
void worker_task_stand_still(struct worker *w, struct worker_task *t);

/* Says goodbye to connections with TLS, and goes on serving; done when they are gone, soon. */
void worker_task_say_goodbye_tls(struct worker *w, struct worker_task *t);

/* Says goodbye to all; done when all are gone, at shutdown_timeout at the latest. */
void worker_task_say_goodbye(struct worker *w, struct worker_task *t);

/* Ends the loop and aborts who is still there; no done(). */
void worker_task_end_loop(struct worker *w, struct worker_task *t);

/* The spool takes chunks again. */
void worker_task_spool_room(struct worker *w, struct worker_task *t);

/* Answers at once: for the watchdog. */
void worker_task_ping(struct worker *w, struct worker_task *t);

/* Answers a task that is done. Thread: the worker's. */
void worker_task_answer(struct worker *w, struct worker_task *t);

/*
 * Takes a new configuration into use, and what was made of it; the reference goes to the
 * worker. Thread: the worker's.
 */
void worker_configure(struct worker *w, struct policy *policy);

/* One turn of a worker's loop; for its thread and for tests that drive it. */
int worker_turn(struct worker *w, uint64_t longest_ns) WB_NODISCARD;

/* A connection that came in by @transport; what accepting does after accept4(). NULL: no room. */
struct conn *worker_accept_conn(struct worker *w, const struct transport *transport,
				const struct sock_peer *peer);

/* One from before this process, to be filled; limits are not asked. NULL: no memory for it. */
struct conn *worker_restore_conn(struct worker *w, const struct transport *transport,
				 const struct sock_peer *peer, bool was_refused);

/* Reports its events from now on. Return: 0 | -errno of epoll_ctl. */
int worker_attach(struct worker *w, struct conn *c) WB_NODISCARD;
