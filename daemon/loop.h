/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_LOOP_H
#define SHMB_DAEMON_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The broker's event loop: a proactor for one thread, over io_uring or epoll.
 *
 * Rules that hold for every function below unless it says otherwise:
 *
 * - Context: the thread that called loop_new(); an io_uring instance serves no other thread.
 * - Callbacks run only inside loop_run(), and may call any of these functions, also to close the
 *   very object that called them. Nothing is called for an object after it was closed.
 * - Objects are freed after the batch of events in which they were closed, at the earliest.
 */

struct loop;
struct loop_conn;
struct loop_listener;
struct loop_timer;
struct loop_watch;

/* How much a connection may have queued, and how many fds one packet may carry. */
#define LOOP_QUEUE_RECORDS 64U
#define LOOP_QUEUE_BYTES   65536U
#define LOOP_PACKET_FDS	   32U

enum loop_backend {
	LOOP_AUTO,
	LOOP_URING,
	LOOP_EPOLL,
};

/**
 * loop_new - Create a loop
 * @backend: LOOP_AUTO takes io_uring, and epoll if io_uring is refused or fails its self-test
 * @ret_loop: the new loop
 *
 * The ring belongs to the calling thread, keeps the credentials the process has now, and is
 * restricted to the few operations this loop uses: call this after dropping privileges.
 *
 * Return: 0, -ENOMEM, -EMFILE, -ENFILE; with LOOP_URING also what io_uring said (-EPERM, -ENOSYS,
 * -EINVAL, -EACCES, -EIO or -ETIME for a failed self-test).
 */
int loop_new(enum loop_backend backend, struct loop **ret_loop);

/**
 * loop_free - Free a loop and every object that still belongs to it
 * @loop: loop or NULL, not running
 *
 * Return: NULL.
 */
struct loop *loop_free(struct loop *loop);

/**
 * loop_backend_name - Tell which back end the loop runs on
 * @loop: loop
 *
 * Return: "io_uring" or "epoll".
 */
const char *loop_backend_name(const struct loop *loop);

/**
 * loop_run - Handle events until loop_stop()
 * @loop: loop
 *
 * Return: the code given to loop_stop(), or the error of the waiting system call. -EPERM or -ENOSYS
 * means that a sandbox put up later forbids io_uring: the loop is lost with its connections, and
 * the caller starts again with LOOP_EPOLL.
 */
int loop_run(struct loop *loop);

/**
 * loop_set_gate - Ask before each callback whether it may run
 * @loop: loop
 * @gate: false: call nothing any more, loop_run() returns -ESTALE
 * @data: for @gate
 */
void loop_set_gate(struct loop *loop, bool (*gate)(void *data), void *data);

/**
 * loop_stop - Make loop_run() return after the current batch of events
 * @loop: loop
 * @code: what loop_run() returns; the first call wins
 *
 * Called before loop_run(), it makes that call return at once. From another thread, write to an
 * eventfd under loop_watch() instead.
 */
void loop_stop(struct loop *loop, int code);

/**
 * loop_now_ns - Tell when the current batch of events began
 * @loop: loop
 *
 * Return: CLOCK_MONOTONIC in ns; outside loop_run() the time of the last batch.
 */
uint64_t loop_now_ns(const struct loop *loop);

/**
 * loop_listen - Accept connections
 * @loop: loop
 * @fd: listening SOCK_SEQPACKET socket; stays the caller's, becomes O_NONBLOCK, and stops taking
 *	fds from clients where the kernel can do that (SO_PASSRIGHTS)
 * @accepted: gets each new connection (O_CLOEXEC, O_NONBLOCK) and owns it
 * @data: for @accepted
 * @ret: the listener
 *
 * Without free file descriptors, clients are accepted and closed at once, a few per 100 ms.
 *
 * Return: 0, -ENOMEM, -EMFILE, -ENFILE, or an error of fcntl(2).
 */
int loop_listen(struct loop *loop, int fd, void (*accepted)(void *data, int fd), void *data,
		struct loop_listener **ret);

/**
 * loop_unlisten - Stop accepting
 * @listener: listener or NULL
 *
 * The caller may close the socket at once.
 *
 * Return: NULL.
 */
struct loop_listener *loop_unlisten(struct loop_listener *listener);

/**
 * loop_close_peer - Close a socket whose other end belongs to a client
 * @loop: loop
 * @fd: connected socket that is not (or no longer) under loop_conn_new()
 *
 * A client can queue an fd whose last close blocks for as long as it likes. Where the kernel cannot
 * forbid that, the close happens on a helper thread.
 */
void loop_close_peer(struct loop *loop, int fd);

/**
 * struct loop_conn_ops - What the owner of a connection wants to know
 * @max_packet: longest packet accepted
 * @on_packet: one whole packet, valid during the call and aligned to 8 bytes
 * @on_writable: the queue, not empty before, has been sent; may be NULL
 * @on_closed: nothing will be received or sent any more; called once, then only loop_conn_close()
 *	makes sense. @error is 0 for an orderly end or an empty packet (the kernel does not tell
 *	them apart), -EMSGSIZE for a packet over @max_packet, -EPROTO for one that carried fds (they
 *	were never installed), or what recvmsg(2) or sendmsg(2) said.
 */
struct loop_conn_ops {
	size_t max_packet;
	void (*on_packet)(void *data, const void *packet, size_t len);
	void (*on_writable)(void *data);
	void (*on_closed)(void *data, int error);
};

/**
 * loop_conn_new - Run a connection
 * @loop: loop
 * @fd: connected SOCK_SEQPACKET socket without SO_PASSCRED; the loop's from here on, unless this
 *	fails
 * @ops: callbacks, must outlive the connection
 * @data: for the callbacks
 * @ret: the connection
 *
 * While more than half of the queue's room is taken nothing is received, so that a client which
 * does not read its replies cannot make more of them.
 *
 * Return: 0 or -ENOMEM.
 */
int loop_conn_new(struct loop *loop, int fd, const struct loop_conn_ops *ops, void *data,
		  struct loop_conn **ret);

/**
 * loop_conn_send - Send one packet, after those sent before
 * @conn: connection
 * @packet: bytes, copied if need be
 * @len: at least 1
 * @fds: sent along, stay the caller's and may be closed at once; NULL if @n_fds is 0
 * @n_fds: up to LOOP_PACKET_FDS
 *
 * After an error nothing of the packet was sent and the connection goes on, except that after
 * -EPIPE and -ECONNRESET on_closed() follows.
 *
 * Return: 0; -ENOBUFS if the queue has LOOP_QUEUE_RECORDS or would exceed LOOP_QUEUE_BYTES;
 * -EINVAL for bad sizes; -ENOTCONN after on_closed(); -ENOMEM; -EMFILE; or what sendmsg(2) said.
 */
int loop_conn_send(struct loop_conn *conn, const void *packet, size_t len, const int *fds,
		   unsigned n_fds);

/**
 * loop_conn_idle - Tell whether everything was handed to the kernel
 * @conn: connection
 *
 * A caller that makes messages from state sends while this is true and waits for on_writable()
 * otherwise.
 *
 * Return: whether nothing is queued or being sent.
 */
bool loop_conn_idle(const struct loop_conn *conn);

/**
 * loop_conn_close - Close a connection
 * @conn: connection or NULL
 *
 * What is queued is dropped. The other end sees the close at once.
 *
 * Return: NULL.
 */
struct loop_conn *loop_conn_close(struct loop_conn *conn);

/**
 * loop_watch - Wait until an fd can be read
 * @loop: loop
 * @fd: pidfd, signalfd, eventfd and the like; one watch per fd; stays the caller's
 * @once: report only the first time
 * @ready: called as long as @fd stays readable (level-triggered), so it should read
 * @data: for @ready
 * @ret: the watch
 *
 * Return: 0 or -ENOMEM.
 */
int loop_watch(struct loop *loop, int fd, bool once, void (*ready)(void *data), void *data,
	       struct loop_watch **ret);

/**
 * loop_unwatch - Forget an fd
 * @watch: watch or NULL
 *
 * The caller may close the fd at once.
 *
 * Return: NULL.
 */
struct loop_watch *loop_unwatch(struct loop_watch *watch);

/**
 * loop_timer_at - Call back at a time
 * @loop: loop
 * @at_ns: CLOCK_MONOTONIC; UINT64_MAX: not before loop_timer_move()
 * @fired: called once, never early, on epoll up to 1 ms late; equal times fire in order of setting
 * @data: for @fired
 * @ret: the timer, the caller's until loop_timer_cancel(), also after it has fired
 *
 * Return: 0 or -ENOMEM.
 */
int loop_timer_at(struct loop *loop, uint64_t at_ns, void (*fired)(void *data), void *data,
		  struct loop_timer **ret);

/**
 * loop_timer_move - Set a timer to another time, whether it has fired or not
 * @timer: timer
 * @at_ns: as for loop_timer_at()
 */
void loop_timer_move(struct loop_timer *timer, uint64_t at_ns);

/**
 * loop_timer_cancel - Free a timer
 * @timer: timer or NULL
 *
 * Return: NULL.
 */
struct loop_timer *loop_timer_cancel(struct loop_timer *timer);

/**
 * struct loop_deferred - A call put off to the end of the batch; embedded in the owner's object
 * @run: what to call
 * @data: for @run
 * @prev: the loop's; NULL while not queued
 * @next: the loop's
 */
struct loop_deferred {
	void (*run)(void *data);
	void *data;
	struct loop_deferred **prev;
	struct loop_deferred *next;
};

/**
 * loop_defer - Call something once after the current batch of events
 * @loop: loop
 * @deferred: zeroed but for run and data at first; must not move or go while queued
 *
 * Does nothing if @deferred is queued already. What is deferred by a deferred call runs after the
 * next batch.
 */
void loop_defer(struct loop *loop, struct loop_deferred *deferred);

/**
 * loop_defer_cancel - Take back loop_defer()
 * @loop: loop
 * @deferred: queued or not
 */
void loop_defer_cancel(struct loop *loop, struct loop_deferred *deferred);

#endif
