/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_LOOP_INTERNAL_H
#define SHMB_DAEMON_LOOP_INTERNAL_H

/*
 * What the parts of the loop know of each other; nobody else includes this.
 *
 * Everything with an fd is a *source*. The common part says which operations a source wants; before
 * each wait the engine (back end) brings the kernel in line with that, and reports each result
 * through source_complete(). Because the kernel hears of an fd only then, no callback can run, and
 * so no fd number can change hands, between naming an fd and submitting it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

struct loop;
struct loop_conn_ops;
struct loop_deferred;
struct loop_reaper;
struct loop_timer;

enum source_kind {
	SOURCE_LISTENER,
	SOURCE_CONN,
	SOURCE_WATCH,
};

/* Bits: a source has at most one operation of each kind. */
enum source_op {
	OP_ACCEPT = 1,
	OP_RECV = 2,
	OP_SEND = 4,
	OP_POLL = 8,
};

/**
 * struct loop_source - Something with an fd
 * @loop: owner
 * @next: in the list of dirty sources
 * @next_dead: in the list of dead sources
 * @next_retry: in the list of sources that wait for an error to pass
 * @fd: file descriptor
 * @slot: index into the loop's table
 * @events: epoll: what is registered
 * @kind: enum source_kind
 * @wanted: enum source_op bits that the common part waits for
 * @armed: io_uring: enum source_op bits in the kernel's hands; @fd and buffers live until it is 0
 * @cancelled: io_uring: bits of @armed for which a cancel was sent
 * @closed: the owner closed it; no more callbacks
 * @dirty: in the dirty list
 * @retry: in the retry list
 * @buried: in the dead list
 */
struct loop_source {
	struct loop *loop;
	struct loop_source *next;
	struct loop_source *next_dead;
	struct loop_source *next_retry;
	int fd;
	uint32_t slot;
	uint32_t events;
	uint8_t kind;
	uint8_t wanted;
	uint8_t armed;
	uint8_t cancelled;
	bool closed;
	bool dirty;
	bool retry;
	bool buried;
};

struct loop_listener {
	struct loop_source source;
	void (*accepted)(void *data, int fd);
	void *data;
};

struct loop_watch {
	struct loop_source source;
	void (*ready)(void *data);
	void *data;
	bool once;
};

struct conn_packet;

/**
 * struct loop_conn - A connection
 * @source: base
 * @ops: callbacks
 * @data: for @ops
 * @peek: fds may be queued on the socket: look at a packet before taking it
 * @failed: on_closed() was called
 * @n_queued: packets in the queue
 * @queued_bytes: bytes in the queue
 * @head: packet being sent
 * @tail: where to append
 * @recv_msg: for the receive in flight; names @recv_iov
 * @recv_iov: names @packet
 * @send_msg: for the send in flight; names @send_iov and the control message in @head
 * @send_iov: names @head
 * @packet: receive buffer of ops->max_packet bytes
 */
struct loop_conn {
	struct loop_source source;
	const struct loop_conn_ops *ops;
	void *data;
	bool peek;
	bool failed;
	unsigned n_queued;
	size_t queued_bytes;
	struct conn_packet *head;
	struct conn_packet **tail;
	struct msghdr recv_msg;
	struct iovec recv_iov;
	struct msghdr send_msg;
	struct iovec send_iov;
	unsigned char packet[] __attribute__((__aligned__(8)));
};

struct source_slot {
	struct loop_source *source;
	uint32_t generation;
	uint32_t next_free;
};

/**
 * struct loop_engine - A back end
 * @name: for people
 * @send_at_once: sending right away is as cheap as queuing
 * @open: prepare loop->engine_data; 0 or negative errno
 * @close: undo @open
 * @sync: make the kernel wait for what the source wants; 0, or negative errno if it has to be tried
 *	again soon
 * @drop: the source was just closed: call source_bury() as soon as the kernel let go of it
 * @wait: wait until @deadline_ns (CLOCK_MONOTONIC, UINT64_MAX for ever, past for no wait), set
 *	loop->now, report what happened; 0, or negative errno if there is no point in going on
 */
struct loop_engine {
	const char *name;
	bool send_at_once;
	int (*open)(struct loop *loop);
	void (*close)(struct loop *loop);
	int (*sync)(struct loop_source *source);
	void (*drop)(struct loop_source *source);
	int (*wait)(struct loop *loop, uint64_t deadline_ns);
};

extern const struct loop_engine loop_engine_epoll;
extern const struct loop_engine loop_engine_uring;

struct loop {
	const struct loop_engine *engine;
	void *engine_data;
	uint64_t now;
	bool stopped;
	int code;
	bool (*gate)(void *data);
	void *gate_data;

	struct source_slot *slots;
	uint32_t n_slots;
	uint32_t free_slot; /* n_slots: none */
	uint32_t n_sources;
	struct loop_source *dirty;
	struct loop_source *dead;
	struct loop_source *retry;
	uint64_t retry_at; /* UINT64_MAX: nothing to retry */
	int spare_fd; /* given up to accept and close a client when fds run out */

	struct loop_timer **timers; /* a heap of n_armed, then the rest of n_timers */
	size_t n_armed;
	size_t n_timers;
	size_t timer_room;
	uint64_t timer_seq;

	struct loop_deferred *deferred;
	struct loop_deferred **deferred_tail;
	struct loop_deferred *deferred_now; /* being called */
	struct loop_reaper *reaper;
};

/* loop.c */

/* May another callback run? If not, the loop ends. */
bool loop_may_go_on(struct loop *loop);
/* A name for a source that is never used again: what the kernel carries around for us. */
uint64_t source_token(const struct loop_source *source);
/* NULL if the source is gone. */
struct loop_source *source_find(struct loop *loop, uint64_t token);
int source_init(struct loop_source *source, struct loop *loop, enum source_kind kind, int fd);
void source_want(struct loop_source *source, enum source_op op);
void source_dirty(struct loop_source *source);
/* Not now, the same error would come back: in a while, or when an fd was closed. */
void source_retry(struct loop_source *source);
void source_close(struct loop_source *source);
void source_bury(struct loop_source *source);
/* @more: the operation goes on by itself. */
void source_complete(struct loop_source *source, enum source_op op, int result, bool more);
uint64_t clock_now_ns(void);

/* loop-timer.c */

uint64_t timers_next(const struct loop *loop);
void timers_run(struct loop *loop);
void timers_free(struct loop *loop);

/* loop-conn.c */

struct loop_conn *conn_of(struct loop_source *source);
/* Return: flags for recvmsg(2) with recv_msg. */
int conn_prepare_recv(struct loop_conn *conn);
/* Return: flags for sendmsg(2) with send_msg. */
int conn_prepare_send(struct loop_conn *conn);
void conn_received(struct loop_conn *conn, int result);
void conn_sent(struct loop_conn *conn, int result);
void conn_release(struct loop_conn *conn);

/* loop-listen.c */

void listener_accepted(struct loop_listener *listener, int result, bool more);
/* Whether no client has ever been able to queue an fd on this socket. */
bool fd_refuses_rights(int fd);
void fd_refuse_rights(int fd);

/* loop-reaper.c: closes what may block. */

void reaper_close(struct loop *loop, int fd);
void reaper_free(struct loop *loop);

#endif
