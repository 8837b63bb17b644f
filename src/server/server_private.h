/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The daemon's state on the main thread, shared by server.c (life),
 * server_admin.c (what the HTTP endpoints do), server_reload.c,
 * server_handover.c (from one process to the next) and server_execute.c (SIGUSR2:
 * the next is the same process).
 */

#include <limits.h>

#include "handover/handover.h"
#include "io/memfile.h"
#include "io/reactor.h"
#include "model/config.h"
#include "service/admin.h"
#include "worker/spool_replies.h"
#include "worker/worker.h"

struct server;
struct passing;

/* One ping to each worker at a time: for the watchdog and /healthz. */
struct WB_OWNER(main) server_ping {
	struct worker_task task;
	struct server *server;
	bool is_out;       /* the worker has not answered yet */
	uint64_t since_ns; /* when it went out */
};

/* Names of descriptors, as the manager keeps them and as they come. */
#define SERVER_NAME_STATE "wsbind-state"
#define SERVER_NAME_PARCEL "wsbind-bag"
extern const char *const server_listener_name[LISTENER_N_KINDS];

#define SERVER_MAX_LISTENERS (WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS)

/* What came from the process before, or from socket activation. */
struct WB_OWNER(main) server_heritage {
	struct worker_socket socket[SERVER_MAX_LISTENERS];
	unsigned n_sockets;
	int end[2 * PARCEL_MAX_PAIRS];
	unsigned n_ends;
	struct memfile state;
	struct handover_sockets clients;
	bool is_there; /* a state or a parcel, that is */
};

/* What is left to the next process. */
struct WB_OWNER(main) server_legacy {
	struct worker_socket socket[SERVER_MAX_LISTENERS]; /* borrowed of the pool */
	unsigned n_sockets;
	struct parcel parcel;
	struct memfile state;
};

/* Who gets it. */
enum server_handover {
	SERVER_STAYS,
	SERVER_LEAVES_TO_MANAGER, /* systemd keeps it until it starts the next process */
	SERVER_LEAVES_TO_ITSELF,  /* by execve(2) */
};

/* A task that goes to all workers; @then runs when all have answered. */
struct WB_OWNER(main) server_rounds {
	struct server *server;
	void (*then)(struct server *s);
	unsigned open;
	struct server_round_task {
		struct worker_task task;
		struct server_rounds *round;
	} tasks[DIRECTORY_MAX_WORKERS];
};

struct WB_OWNER(main) server {
	struct reactor reactor;
	struct config_source source; /* borrowed texts of argv */
	struct config *config;
	struct policy *policy; /* that goes with it */
	struct worker_pool *pool;
	struct spool *spool;
	struct spool_replies spool_replies;
	struct admin *admin;
	char *control_path; /* NULL: none */
	struct reactor_source signal_source;
	struct reactor_source admin_source;
	int signal_fd;
	struct wheel_timer tick; /* once a second */
	struct wheel_timer admin_timer;
	struct wheel_timer stop_timer;
	struct server_ping pings[DIRECTORY_MAX_WORKERS];
	struct server_rounds round; /* of stopping */
	struct server_heritage heritage;
	struct server_legacy left;
	struct record_writer writer;   /* of left.state */
	struct handover_report report; /* of what was taken over, or is left */
	enum server_handover handover;
	uint64_t state_bytes, pause_ns; /* of what was taken over; for metrics */
	char **arguments;               /* behind "server"; borrowed */
	char program[PATH_MAX];         /* that is executed again */
	int program_fd;                 /* as it was at the start */
	int check_fd;                   /* of the process that checks the configuration; -1: none */
	struct reactor_source check_source;
	struct wheel_timer check_timer;
	struct wheel_timer spool_timer; /* looks whether files are written, before a hand-over */
	uint64_t spool_deadline_ns;
	struct passing *passing; /* to the program that is executed */
	bool restart_announced;  /* a SIGTERM means a restart … */
	unsigned restart_room;   /* … for which systemd keeps so many descriptors */
	int signal_after;        /* to be raised for the program that is executed; 0: none */
	int exit_status;
	uint64_t watchdog_ns;       /* 0: none */
	uint64_t started_ms;        /* wall clock */
	uint64_t last_in, last_out; /* messages, at the last tick */
	unsigned reloads;           /* under way: one at a time */
	bool reload_again;          /* SIGHUP came meanwhile */
	bool is_stopping;
	bool was_told_early; /* SIGTERM came while systemd runs no ExecStop= */
	bool has_taken_over;
	size_t n_lost; /* of those that were left to it */
	bool is_done;  /* the loop ends */
};

extern const struct admin_ops server_admin_ops;

/**
 * server_reload() - read the configuration again and give it to the workers
 * @req:    answered when the reload is done; NULL: nobody waits
 */
void server_reload(struct server *s, struct admin_request *req);

/*
 * Raises the limit of open files as far as it goes; where that is too low, a warning, and
 * max_connections of @config, which nobody else has yet, becomes what fits.
 */
void server_fit_descriptors(struct config *config);

/* The worker that main gives its own publications to; any would do. */
static inline struct worker *server_first(struct server *s)
{
	return s->pool->workers[0];
}

/* Starts the thread that writes files, if spool_dir is set. Return: 0, or it has been logged. */
int server_start_spool(struct server *s, bool keep) WB_NODISCARD;

/* Says goodbye to everybody, and ends. */
void server_stop(struct server *s, const char *why);

/* A restart comes, for which systemd keeps @room descriptors. */
void server_restart_announced(struct server *s, int room);

/* SIGTERM: hands over where a restart is meant, else stops. */
void server_terminate(struct server *s, const char *why);

/* Everything stops, and is left to the next process; where that fails, goes on or stops. */
void server_hand_over(struct server *s, enum server_handover how, const char *why);

/* All that server_execute() needs and that may fail. Return: 0 | -errno, nothing has changed. */
int server_prepare_execution(struct server *s) WB_NODISCARD;

/* SIGUSR2: executes the program again, once it has found its configuration right. */
void server_reexecute(struct server *s);

/* What main does when everything was left to itself. Returns when no program can be executed. */
void server_execute(struct server *s);

/* Remembers which program this is. */
void server_find_program(struct server *s);

/* Takes what was handed over, by systemd or by the process before. */
void server_inherit(struct server *s);

/* Where more channels are open from before than max_channels allows, that becomes what fits. */
void server_fit_channels(struct server *s);

/* Fills the workers, which haven't started, with what the process before knew of its clients. */
void server_restore(struct server *s);

/* Nothing of it is needed any more, neither here nor by the manager. */
void server_forget_heritage(struct server *s);

/* The workers go on: says so, and for how long they didn't. */
void server_report_taken_over(struct server *s);

/* This process does not start: those that were handed over are told. */
void server_disinherit(struct server *s);

/* Gives a task to every worker; @then runs when all have answered. */
void server_round(struct server *s, worker_task_fn *run, void (*then)(struct server *s));

/* Runs after anything that may have changed when the admin wants to run again. */
void server_arm_admin(struct server *s);

/* Sums of the counters that status lines show. */
uint64_t server_sum(const struct server *s, size_t offset);
#define SERVER_SUM(s, field) server_sum((s), offsetof(struct metrics, field))
