/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_SHMBROKER_H
#define SHMBROKER_SHMBROKER_H

/*
 * The C API of libshmbroker, for C programs and for every FFI. It keeps to what declaration
 * parsers accept: opaque handles by pointer, int32_t results, no structs by value, no callbacks.
 *
 * Results: >= 0 success or a count, < 0 a negative errno value; shmb_last_error() copies out a
 * sentence about the last failure in the calling thread. Any call can also return
 *	-EINVAL	a NULL or impossible argument
 *	-ECHILD	the handle was made before fork() and this is the child
 *
 * Threads: a handle is used by one thread at a time; different handles, also of one client, are
 * independent. Nothing here prints, aborts, or touches signal handlers.
 *
 * Blocking: only functions with a timeout_ns parameter and the *_open() functions block. A
 * timeout is in nanoseconds; SHMB_FOREVER waits for ever, 0 only looks.
 */

#include <stdint.h>

#include <shmbroker/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHMB_FOREVER (-1ll)

struct shmb_client;
struct shmb_channel;
struct shmb_publisher;
struct shmb_subscriber;
struct shmb_caller;
struct shmb_server;
struct shmb_waitset;
struct shmb_broker;

/**
 * struct shmb_view - process-private block of a publisher or subscriber that its calls fill
 * @data:     address of the payload that was loaned or peeked at
 * @len:      bytes of the (first) payload
 * @count:    records that @data covers
 * @stride:   bytes from one payload to the next, when @count > 1
 * @type:     the application's type of the (first) record
 * @sequence: number of the (first) record among those of its publisher, from 0
 * @lost:     records that this subscriber has lost so far, all publishers together
 * @publisher_id: whose record it is
 * @term:     state channels: under which claim the value was put; queues: the job, for
 *	      shmb_subscriber_done(); ordered channels: when the (first) record was published, in
 *	      nanoseconds of CLOCK_MONOTONIC
 * @attempt:  queues: how often the record has been handed to a worker, this time included
 * @n_fds:    so many fds came with the record: see shmb_subscriber_take_fds()
 * @n_fds_lost: so many came with it that this subscriber cannot have any more
 *
 * A binding asks for its address once, and reads it after each call.
 */
struct shmb_view {
	uint64_t data;
	uint32_t len;
	uint32_t count;
	uint32_t stride;
	uint32_t type;
	uint64_t sequence;
	uint64_t lost;
	uint64_t publisher_id;
	uint64_t term;
	uint32_t attempt;
	uint16_t n_fds;
	uint16_t n_fds_lost;
};

/* ---- library ---------------------------------------------------------------------------------- */

/**
 * shmb_version() - version of the library that is running
 *
 * Context: any thread; does not block.
 * Return: a string that lives as long as the process.
 */
const char *shmb_version(void);

/**
 * shmb_abi_version() - SHMB_ABI_VERSION of the library that is running
 *
 * Context: any thread; does not block.
 * Return: a number that grows whenever functions are added.
 */
int32_t shmb_abi_version(void);

/**
 * shmb_last_error() - why the last call in this thread failed
 * @text: room for the sentence, NUL-terminated if @cap > 0
 * @cap:  bytes of @text
 *
 * Context: any thread; does not block.
 * Return: bytes of the whole sentence without its NUL, 0 if nothing has failed yet.
 */
int32_t shmb_last_error(char *text, uint32_t cap);

/**
 * shmb_strerror() - what a result means in general
 * @result: negative result of a function
 *
 * Context: any thread; does not block.
 * Return: a string that lives as long as the process.
 */
const char *shmb_strerror(int32_t result);

/* ---- client ----------------------------------------------------------------------------------- */

#define SHMB_CLIENT_NO_START	(1u << 0) /* do not start a per-user broker */
#define SHMB_CLIENT_ALLOW_RELAY (1u << 1) /* accept a broker that sees another process than us */

/**
 * struct shmb_client_options - how to connect; zeroes mean the default
 * @options_len:    sizeof(struct shmb_client_options)
 * @flags:	    SHMB_CLIENT_*
 * @address:	    path of the control socket, @address_len bytes; NULL: $SHMBROKER_ADDRESS, else the
 *		    system broker if its socket exists, else the user's own broker, which is started
 *		    if there is none
 * @address_len:    bytes of @address
 * @label_len:	    bytes of @label, at most 32
 * @label:	    what shmctl shows for this process; NULL: its command name
 * @key_file:	    private key of this client, NUL-terminated; NULL: $SHMBROKER_KEY, else a new key
 * @broker_key_file: public key of the broker; NULL: broker.pub beside the socket
 * @connect_timeout_ns: 0: five seconds
 */
struct shmb_client_options {
	uint32_t options_len;
	uint32_t flags;
	const char *address;
	uint32_t address_len;
	uint32_t label_len;
	const char *label;
	const char *key_file;
	const char *broker_key_file;
	int64_t connect_timeout_ns;
};

/**
 * shmb_client_open() - connect to a broker
 * @options:	or NULL
 * @ret_client:	stores the client
 *
 * Context: any thread; blocks until connected or the timeout. A client's handles reconnect by
 * themselves when a broker has been restarted; until then lanes keep flowing.
 * Return: 0; -ENOENT or -ECONNREFUSED: no broker there; -ETIMEDOUT; -EKEYREJECTED: it is not the
 *	   broker whose key we hold, or it does not know ours; -EACCES: its socket or directory is
 *	   not for us, or not safe; -EPROTONOSUPPORT: no common protocol version; -EMFILE, -ENFILE,
 *	   -ENOMEM.
 */
int32_t shmb_client_open(const struct shmb_client_options *options,
			 struct shmb_client **ret_client);

/**
 * shmb_client_close() - disconnect
 * @client: or NULL; its channels, publishers, subscribers and wait sets must be closed before
 *
 * Context: any thread; does not block, unless there is a broker but no connection to it: it comes back
 * to say that it leaves, and what was closed meanwhile, for as long as a connection may take, but 5 s
 * at most.
 * Return: 0; -EBUSY: some of them are open, nothing was closed.
 */
int32_t shmb_client_close(struct shmb_client *client);

/**
 * shmb_client_ping() - ask the broker for a sign of life, and take in what it has sent
 * @client:	client
 * @timeout_ns:	how long to wait for it
 *
 * Context: any thread; blocks.
 * Return: 0; -ETIMEDOUT; -ENOTCONN: no broker now.
 */
int32_t shmb_client_ping(struct shmb_client *client, int64_t timeout_ns);

/**
 * shmb_client_connected() - is there a broker now?
 * @client: client
 *
 * Context: any thread; does not block.
 * Return: 1 or 0. Either way channels that are open keep flowing.
 */
int32_t shmb_client_connected(struct shmb_client *client);

/* ---- channel ---------------------------------------------------------------------------------- */

#define SHMB_CHANNEL_CREATE    (1u << 0) /* create it if there is none */
#define SHMB_CHANNEL_EXCLUSIVE (1u << 1) /* with CREATE: -EEXIST if there is one */
#define SHMB_CHANNEL_STREAM    1u /* pattern: records, each of which every subscriber gets */
#define SHMB_CHANNEL_QUEUE     2u /* pattern: records, each of which one worker gets */
#define SHMB_CHANNEL_CALL      3u /* pattern: requests and replies */
#define SHMB_CHANNEL_STATE     4u /* pattern: the latest value of each key */

#define SHMB_CHANNEL_ANY_SCHEMA (1u << 2) /* accept any schema; shmb_channel_schema() tells it */
#define SHMB_CHANNEL_ORDERED	(1u << 3) /* if it is created: one order for all records of a stream */
#define SHMB_CHANNEL_RETAIN	(1u << 4) /* it stays until it is removed, see shmb_channel_remove() */

#define SHMB_BLOCKS_HUGE_PAGES \
	(1u << 0) /* have them in huge pages, as far as the kernel gives some */

#define SHMB_BACKING_AUTO   0u /* POSIX, until its members are of more than one user: then SEALED */
#define SHMB_BACKING_POSIX  1u /* named objects in /dev/shm, which a restarted broker finds again */
#define SHMB_BACKING_SEALED 2u /* memfds that nobody can truncate; see shmbroker(7) */

/**
 * struct shmb_channel_options - zeroes mean the default
 * @options_len:     sizeof(struct shmb_channel_options)
 * @flags:	     SHMB_CHANNEL_*; NULL options mean CREATE
 * @schema:	     a table as in schema.h; NULL: records are untyped. Call: of a struct of two
 *		     structs called request and reply; if it has only one of them, the other is
 *		     untyped
 * @schema_len:	     its bytes
 * @lane_len:	     bytes of each publisher's ring: a power of two from 4 KiB to 2 GiB; default
 *		     1 MiB. A record can have up to lane_len / 2 - 16 bytes, unless @record_len_max
 *		     allows more. Used when the channel is created, as are the limits
 * @max_publishers:  default 64, at most 4096; call: lanes, of which there are two for each caller of
 *		     each server, default 1024. A lane has 256 KiB there, if @lane_len is 0
 * @max_subscribers: default 64, at most 4096; call: callers and servers, default 256
 * @history:	     how many of the last records of each publisher a late subscriber gets; at most so
 *		     many as fit into half a lane. Default: none
 * @backing:	     SHMB_BACKING_*; rules of the broker may decide otherwise
 * @pattern:	     SHMB_CHANNEL_STREAM, the default, _QUEUE, _CALL or _STATE
 * @max_keys:	     state: how many keys there can be, over the life of the channel; default 64, at
 *		     most 4096. Each publisher has a cell for each of them
 * @value_len:	     state: bytes of the longest value, if there is no schema; default 232
 * @record_len_max:  streams: bytes of the longest record, at most 1 GiB; call: of the longest request
 *		     or reply. Long ones then lie in blocks outside of the lanes. 0: there are no
 *		     blocks
 * @arena_len:	     blocks: bytes that those of each publisher may take; 0: eight times the longest
 *		     record, but 4 MiB at least. A publisher gets them as it needs them
 * @inline_len_max:  blocks: longer records lie in blocks, others in the lane; 0: 16 KiB, or as much
 *		     as fits into the lane; call: 1028 at least
 * @max_holds:	     blocks: so many records may each subscriber, caller or server hold, at most 64;
 *		     0: 4
 * @block_flags:     blocks: SHMB_BLOCKS_*
 * @numa_node:	     blocks: 1 + the NUMA node that their memory is to come from; 0: any
 * @ttl_ms:	     stream: subscribers skip records that were published longer ago, and count them;
 *		     default: none does. Each record takes 16 bytes more then
 * @max_fds:	     stream: so many file descriptors may a record carry, at most 64; default: none. Each
 *		     record takes 16 bytes more then. Policy may allow fewer
 */
struct shmb_channel_options {
	uint32_t options_len;
	uint32_t flags;
	const void *schema;
	uint32_t schema_len;
	uint32_t lane_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t history;
	uint32_t backing;
	uint32_t pattern;
	uint32_t max_keys;
	uint32_t value_len;
	uint32_t record_len_max;
	uint64_t arena_len;
	uint32_t inline_len_max;
	uint32_t max_holds;
	uint32_t block_flags;
	uint32_t numa_node;
	uint32_t ttl_ms;
	uint32_t max_fds;
};

/**
 * shmb_channel_open() - open a channel, creating it if wanted
 * @client:	 client
 * @name:	 parts of [a-z0-9._-]+ separated by '/', @name_len bytes, at most 128
 * @name_len:	 bytes of @name
 * @options:	 or NULL: create it if there is none, untyped
 * @ret_channel: stores the channel
 *
 * A channel lives while some client has it open. One that somebody has opened with
 * SHMB_CHANNEL_RETAIN, who may create it, lives until it is removed; its history then is also that of
 * publishers that have gone: of all of these together so many records, or a few more, as of one that
 * is there.
 *
 * Context: any thread; blocks for one round trip to the broker.
 * Return: 0; -EINVAL: bad name, limit or schema; -ENOENT: there is none (or none for this user);
 *	   -EEXIST; -EPROTOTYPE: the channel has another schema, shmb_last_error() names the field,
 *	   or another pattern;
 *	   -EACCES, -EDQUOT: policy; -ENOSPC: no room in /dev/shm; -ENOTCONN; -ETIMEDOUT.
 */
int32_t shmb_channel_open(struct shmb_client *client, const char *name, uint32_t name_len,
			  const struct shmb_channel_options *options,
			  struct shmb_channel **ret_channel);

/**
 * shmb_channel_remove() - let a retained channel go
 * @client:   client
 * @name:     of the channel
 * @name_len: bytes of @name
 *
 * What publishers that have gone have left is given back now, the channel when nobody has it open any
 * more. Its creator may do that, and who has the right to administer it.
 *
 * Context: any thread; blocks for one round trip to the broker.
 * Return: 0; -EINVAL: bad name, or the channel is not retained; -ENOENT: there is none, or this user
 *	   may not do that; -ENOTCONN; -ETIMEDOUT.
 */
int32_t shmb_channel_remove(struct shmb_client *client, const char *name, uint32_t name_len);

/**
 * shmb_channel_close() - close a channel
 * @channel: or NULL; its publishers and subscribers must be closed before
 *
 * Context: any thread; does not wait for the broker.
 * Return: 0; -EBUSY: some of them are open, nothing was closed.
 */
int32_t shmb_channel_close(struct shmb_channel *channel);

/**
 * shmb_channel_schema() - copy out the channel's schema
 * @channel: channel
 * @schema:  room for it
 * @cap:     bytes of @schema
 *
 * Context: any thread; does not block.
 * Return: its bytes (copied if they fit into @cap), 0 if records are untyped.
 */
int32_t shmb_channel_schema(struct shmb_channel *channel, void *schema, uint32_t cap);

/**
 * struct shmb_channel_info - what a channel is and who is there
 * @lane_len:	       bytes of each publisher's ring
 * @record_len_max:    bytes of the largest record
 * @record_len:	       bytes of every record, 0 if untyped
 * @max_publishers:    limit
 * @max_subscribers:   limit
 * @n_publishers:      now; call: callers
 * @n_subscribers:     now; call: servers
 * @history:	       how many records of each publisher a late subscriber gets
 * @backing:	       SHMB_BACKING_POSIX or _SEALED: of what is made from now on
 * @pattern:	       SHMB_CHANNEL_STREAM, _QUEUE, _CALL or _STATE
 * @max_keys:	       state: limit
 * @value_len_max:     state: bytes of the longest value
 * @arena_len:	       bytes that the blocks of each publisher may take; 0: there are no blocks
 * @inline_len_max:    longer records lie in blocks
 * @max_holds:	       so many records may each subscriber hold
 * @block_flags:       SHMB_BLOCKS_* that were asked for
 * @numa_node:	       1 + the NUMA node that was asked for; 0: any
 * @ttl_ms:	       subscribers skip records that were published longer ago; 0: none
 * @ordered:	       1: subscribers receive the records of all publishers in one order
 * @retained:	       1: it stays until it is removed
 * @request_len:       call: bytes of every request, 0 if untyped
 * @reply_len:	       call: bytes of every reply, 0 if untyped
 * @max_fds:	       so many file descriptors may a record carry; 0: none
 */
struct shmb_channel_info {
	uint32_t lane_len;
	uint32_t record_len_max;
	uint32_t record_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t n_publishers;
	uint32_t n_subscribers;
	uint32_t history;
	uint32_t backing;
	uint32_t pattern;
	uint32_t max_keys;
	uint32_t value_len_max;
	uint64_t arena_len;
	uint32_t inline_len_max;
	uint32_t max_holds;
	uint32_t block_flags;
	uint32_t numa_node;
	uint32_t ttl_ms;
	uint32_t ordered;
	uint32_t retained;
	uint32_t request_len;
	uint32_t reply_len;
	uint32_t max_fds;
};

/**
 * shmb_channel_info() - what a channel is and who is there
 * @channel: channel
 * @info:    filled
 * @cap:     sizeof(struct shmb_channel_info)
 *
 * Context: any thread; does not block.
 * Return: 0.
 */
int32_t shmb_channel_info(struct shmb_channel *channel, struct shmb_channel_info *info,
			  uint32_t cap);

/**
 * shmb_channel_wait_members() - wait until enough members are there
 * @channel:	 channel
 * @publishers:	 at least so many publishers, or callers
 * @subscribers: at least so many subscribers, or servers
 * @timeout_ns:	 how long
 *
 * Context: any thread; blocks.
 * Return: 0; -ETIMEDOUT.
 */
int32_t shmb_channel_wait_members(struct shmb_channel *channel, uint32_t publishers,
				  uint32_t subscribers, int64_t timeout_ns);

/* ---- publisher -------------------------------------------------------------------------------- */

#define SHMB_PUBLISHER_DROP_NEWEST (1u << 0) /* lane full: drop the record, count it, return 0 */
#define SHMB_PRIORITY_MAX	   7u
#define SHMB_PUBLISHER_TRUSTING \
	(1u << 1) /* subscribers of the same user may map the lane writable */

/**
 * struct shmb_publisher_options - zeroes mean the default
 * @options_len: sizeof(struct shmb_publisher_options)
 * @flags:	 SHMB_PUBLISHER_*
 * @arena_len:	 so many bytes of blocks are ready when it is open; 0: they come with the first record
 *		 that needs one, which takes as long as opening does
 * @priority:	 0 to SHMB_PRIORITY_MAX. As long as there is a record of a publisher with a higher one,
 *		 subscribers receive none of a lower one, and workers take none
 * @pad:	 zero
 *
 * TRUSTING: some processors hand a cache line over faster to who could write it, too (AMD: 8 bytes there
 * and back in two thirds of the time). No subscriber writes there, but nothing stops one that has
 * lost its way. Others than those of the publisher's user, and sealed segments, stay read-only.
 */
struct shmb_publisher_options {
	uint32_t options_len;
	uint32_t flags;
	uint64_t arena_len;
	uint32_t priority;
	uint32_t pad;
};

/**
 * shmb_publisher_open() - start to publish on a channel
 * @channel: channel
 * @options: or NULL
 * @ret_publisher: stores the publisher
 *
 * Context: any thread; blocks for two round trips to the broker and the allocation of the lane.
 * Return: 0; -EDQUOT: no publisher slot or quota left; -ENOSPC: no room in /dev/shm; -EACCES: also a
 *	   higher priority than policy allows, the sentence says which it does; -EINVAL: also a priority
 *	   where records are in one order, or values; -ENOTCONN; -ETIMEDOUT; -ENOMEM; -EMFILE.
 */
int32_t shmb_publisher_open(struct shmb_channel *channel,
			    const struct shmb_publisher_options *options,
			    struct shmb_publisher **ret_publisher);

/**
 * shmb_publisher_close() - stop publishing; subscribers still get all that was published
 * @publisher: or NULL
 *
 * Context: the thread that uses it; does not wait for the broker.
 * Return: 0.
 */
int32_t shmb_publisher_close(struct shmb_publisher *publisher);

/**
 * shmb_publisher_view() - the publisher's view block, filled by shmb_publisher_loan()
 * @publisher: publisher
 *
 * Context: any thread; does not block.
 * Return: its address, the same for as long as the publisher is open.
 */
struct shmb_view *shmb_publisher_view(struct shmb_publisher *publisher);

/**
 * shmb_publisher_send() - publish a copy of one record
 * @publisher: publisher
 * @data:      the record
 * @len:       its bytes; 0 is a record too. On a typed channel exactly the schema's record_len
 *
 * Context: wait-free but for the wake-up of sleeping subscribers, one system call each. A process
 * killed inside has published the record wholly or not at all, and disturbs nobody.
 * Return: 0; -EAGAIN: a reliable subscriber is a whole ring behind, nothing was sent; -EMSGSIZE:
 *	   longer than a record can be; -EINVAL: not the schema's length; -EBUSY: a loan is out;
 *	   -ESTALE: the broker has evicted this publisher.
 */
int32_t shmb_publisher_send(struct shmb_publisher *publisher, const void *data, uint32_t len);

/**
 * shmb_publisher_send_typed() - shmb_publisher_send() with a record type of the application
 * @publisher: publisher
 * @data:      the record
 * @len:       its bytes
 * @type:      0 to 65535, handed to the subscribers
 *
 * Context: as shmb_publisher_send().
 * Return: as shmb_publisher_send().
 */
int32_t shmb_publisher_send_typed(struct shmb_publisher *publisher, const void *data, uint32_t len,
				  uint32_t type);

/**
 * shmb_publisher_send_fds() - publish a copy of one record that carries file descriptors
 * @publisher: publisher, of a channel with max_fds
 * @data:      the record
 * @len:       its bytes
 * @type:      0 to 65535, handed to the subscribers
 * @fds:       @n_fds of them, which stay open here; each subscriber gets its own
 * @n_fds:     at most the channel's max_fds; 0: as shmb_publisher_send_typed()
 *
 * They are there before the record is. They never pass through the broker, nor does it see them.
 *
 * Context: never blocks; two system calls for each subscriber. A process killed inside has published the
 * record with its fds, or neither.
 * Return: as shmb_publisher_send(); -EAGAIN also: a reliable subscriber has not taken those of some
 *	   dozens of earlier records, or so many are on their way as this user may have
 *	   (RLIMIT_NOFILE), nothing was sent; -EBADF; -EOPNOTSUPP: records of this channel carry none;
 *	   -EINVAL: more than they may carry, or one that the kernel does not pass on.
 */
int32_t shmb_publisher_send_fds(struct shmb_publisher *publisher, const void *data, uint32_t len,
				uint32_t type, const int32_t *fds, uint32_t n_fds);

/**
 * shmb_publisher_send_many() - publish copies of several records at once
 * @publisher: publisher
 * @data:      the records, one after the other without padding
 * @len:       bytes of each record, if @lens is NULL
 * @lens:      bytes of each record, @count of them, or NULL
 * @count:     how many
 *
 * The records that fit become visible together, with one wake-up.
 *
 * Context: as shmb_publisher_send().
 * Return: how many were published (or dropped, with DROP_NEWEST), from the first on; -EAGAIN: none
 *	   fits; else as shmb_publisher_send(), and nothing was sent.
 */
int32_t shmb_publisher_send_many(struct shmb_publisher *publisher, const void *data, uint32_t len,
				 const uint32_t *lens, uint32_t count);

/**
 * shmb_publisher_loan() - lend memory for one record
 * @publisher: publisher
 * @len:       bytes wanted
 *
 * The view's data and len say where. Write the record there, then publish or cancel it. The
 * memory is aligned to 8 bytes, that of a block to 4096, and holds old bytes.
 *
 * Context: wait-free, no system call; but for a block, if those that there are do not suffice, up to
 * three round trips to the broker and the allocation of more.
 * Return: 0; -EAGAIN: full (DROP_NEWEST counts nothing here); -EMSGSIZE; -EBUSY: one loan is out
 *	   already; -ESTALE.
 */
int32_t shmb_publisher_loan(struct shmb_publisher *publisher, uint32_t len);

/**
 * shmb_publisher_publish() - publish the loaned record
 * @publisher: publisher
 * @len:       bytes that were written, at most what was loaned
 *
 * Context: as shmb_publisher_send().
 * Return: 0; -EINVAL: nothing is loaned, or @len is too long (or not the schema's), the loan
 *	   stays out; -ESTALE.
 */
int32_t shmb_publisher_publish(struct shmb_publisher *publisher, uint32_t len);

/**
 * shmb_publisher_publish_fds() - publish the loaned record, with file descriptors
 * @publisher: publisher, of a channel with max_fds
 * @len:       bytes that were written, at most what was loaned
 * @fds:       @n_fds of them, which stay open here
 * @n_fds:     as of shmb_publisher_send_fds()
 *
 * Context: as shmb_publisher_send_fds().
 * Return: as shmb_publisher_publish() and shmb_publisher_send_fds(); the loan stays out if it fails.
 */
int32_t shmb_publisher_publish_fds(struct shmb_publisher *publisher, uint32_t len,
				   const int32_t *fds, uint32_t n_fds);

/**
 * shmb_publisher_cancel() - give the loan back unpublished
 * @publisher: publisher
 *
 * Context: wait-free, no system call.
 * Return: 0; -EINVAL: nothing is loaned.
 */
int32_t shmb_publisher_cancel(struct shmb_publisher *publisher);

/**
 * shmb_publisher_wait() - wait until a record of @len bytes fits
 * @publisher:	publisher
 * @len:	bytes
 * @timeout_ns:	how long
 *
 * Context: the thread that uses it; blocks.
 * Return: 0; -ETIMEDOUT; -EMSGSIZE; -ESTALE.
 */
int32_t shmb_publisher_wait(struct shmb_publisher *publisher, uint32_t len, int64_t timeout_ns);

/**
 * shmb_publisher_fd() - an fd for event loops, to wait without blocking
 * @publisher: publisher
 *
 * Once it was asked for, shmb_publisher_wait() and shmb_publisher_wait_done() with a timeout of 0
 * prepare it before they return -ETIMEDOUT: it is readable when they may succeed, or when there is
 * something else to do for them, as when a worker has gone. Then call them again; only they make it
 * unreadable. Never read from it or close it.
 *
 * Context: the thread that uses it.
 * Return: the fd, valid until the publisher is closed; -EMFILE; -ENFILE; -ENOMEM.
 */
int32_t shmb_publisher_fd(struct shmb_publisher *publisher);

/**
 * shmb_publisher_send_wait() - shmb_publisher_send() that waits for space
 * @publisher:	publisher
 * @data:	the record
 * @len:	its bytes
 * @timeout_ns:	how long
 *
 * Context: the thread that uses it; blocks while the lane is full.
 * Return: as shmb_publisher_send(), with -ETIMEDOUT in place of -EAGAIN.
 */
int32_t shmb_publisher_send_wait(struct shmb_publisher *publisher, const void *data, uint32_t len,
				 int64_t timeout_ns);

/**
 * struct shmb_publisher_stats - counters since the publisher was opened
 * @publisher_id: unique in this broker's life and after
 * @published:	  records
 * @published_len: bytes of ring they took, headers and padding included
 * @dropped:	  records dropped because the lane was full
 * @refused:	  calls that returned -EAGAIN
 * @rings:	  system calls made to wake subscribers
 * @n_subscribers: subscribers that this publisher serves now
 * @n_blocks:	  blocks in use: published, and not passed by all reliable subscribers
 * @n_held:	  blocks that were passed, but are held
 * @n_evicted:	  subscribers that it has stopped waiting for, see evict_after_ms
 * @arena_len:	  bytes of memory for blocks that it has now
 * @backstops:	  bounded sleeps that ended by themselves and found room: lost wake-ups, should be 0
 * @fds_lost:	  file descriptors that a subscriber could not be sent, as a lossy one that has not taken
 *		  earlier ones: of each subscriber
 */
struct shmb_publisher_stats {
	uint64_t publisher_id;
	uint64_t published;
	uint64_t published_len;
	uint64_t dropped;
	uint64_t refused;
	uint64_t rings;
	uint32_t n_subscribers;
	uint32_t n_blocks;
	uint32_t n_held;
	uint32_t n_evicted;
	uint64_t arena_len;
	uint64_t backstops;
	uint64_t fds_lost;
};

/**
 * shmb_publisher_stats() - read the counters
 * @publisher: publisher
 * @stats:     filled
 * @cap:       sizeof(struct shmb_publisher_stats)
 *
 * Context: the thread that uses it; does not block.
 * Return: 0.
 */
int32_t shmb_publisher_stats(struct shmb_publisher *publisher, struct shmb_publisher_stats *stats,
			     uint32_t cap);

/* ---- subscriber ------------------------------------------------------------------------------- */

#define SHMB_SUBSCRIBER_LOSSY	   (1u << 0) /* never hold a publisher back: be lapped, and count it */
#define SHMB_SUBSCRIBER_NO_SPIN	   (1u << 1) /* shmb_subscriber_wait() does not poll, but sleep */
#define SHMB_SUBSCRIBER_NO_HISTORY (1u << 2) /* get only what is published from now on */

#define SHMB_CONFLATE_LEN_MAX 64u

/**
 * struct shmb_subscriber_options - zeroes mean the default
 * @options_len: sizeof(struct shmb_subscriber_options)
 * @flags:	 SHMB_SUBSCRIBER_*
 * @spin_ns:	 how long shmb_subscriber_wait() may poll before it sleeps, if records come faster
 *		 than that; 0: 50 us. On one CPU it never does
 * @history:	 get at most so many records of the channel's history; 0: all of it
 * @credit:	 queues: of each publisher at most so many records that are not done; at most 64,
 *		 0: 32
 * @max_attempts: queues: a record that would be handed out more often goes to the queue of the dead
 *		 letters, see below; 0: no limit
 * @evict_after_ms: hold no publisher up for longer than this without reading: it goes on, and this
 *		 subscriber is lossy for it from then on; 0: hold it up for ever
 * @conflate_offset: streams: where in each record the key is that @conflate_len means
 * @conflate_len: of all records of one publisher that have this many bytes there, and their type, in
 *		 common, and wait to be received, receive only the newest; at most
 *		 SHMB_CONFLATE_LEN_MAX, 0: receive all
 *
 * The evicted subscriber is told once, by -ENOBUFS of the call that receives next. It counts what it
 * has lost and loses, as a lossy one does. To be reliable again it is opened anew.
 */
struct shmb_subscriber_options {
	uint32_t options_len;
	uint32_t flags;
	uint32_t spin_ns;
	uint32_t history;
	uint32_t credit;
	uint32_t max_attempts;
	uint32_t evict_after_ms;
	uint32_t conflate_offset;
	uint32_t conflate_len;
};

/**
 * shmb_subscriber_open() - start to receive from a channel
 * @channel: channel
 * @options: or NULL: reliable
 * @ret_subscriber: stores the subscriber
 *
 * It gets every record whose publish call begins after this function has returned, and of each
 * publisher in order. If the channel has a history, it first gets the last records of each
 * publisher that is there: as many as the channel says, if there are so many and the last half of
 * its lane holds them. A publisher hands them out when it next publishes, lends or waits.
 *
 * Context: any thread; blocks for two round trips to the broker.
 * Return: as shmb_publisher_open(); -EACCES also: policy does not let it hold publishers up for so long,
 *	   the sentence says for how long it does.
 */
int32_t shmb_subscriber_open(struct shmb_channel *channel,
			     const struct shmb_subscriber_options *options,
			     struct shmb_subscriber **ret_subscriber);

/**
 * shmb_subscriber_close() - stop receiving
 * @subscriber: or NULL
 *
 * Context: the thread that uses it; does not wait for the broker.
 * Return: 0; -EBUSY: it is in a wait set.
 */
int32_t shmb_subscriber_close(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_view() - the subscriber's view block
 * @subscriber: subscriber
 *
 * Context: any thread; does not block.
 * Return: its address, the same for as long as the subscriber is open.
 */
struct shmb_view *shmb_subscriber_view(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_recv() - copy out the next record
 * @subscriber: subscriber
 * @data:	room for it
 * @cap:	bytes of @data
 *
 * The view's type, sequence, lost and publisher_id describe it.
 *
 * Context: the thread that uses it; never blocks, no system call unless membership has changed.
 * Return: its bytes (0 for an empty record); -EAGAIN: none; -EMSGSIZE: longer than @cap, it stays
 *	   the next one and the view's len says its length; -EBUSY: records are peeked at; -EBADMSG:
 *	   a publisher wrote impossible bytes: it is read no more, the others are; -ENOBUFS: a
 *	   publisher does not wait for this subscriber any more, see evict_after_ms: said once, the
 *	   view's lost counts what it has lost so far and its publisher_id says whose it was.
 */
int32_t shmb_subscriber_recv(struct shmb_subscriber *subscriber, void *data, uint32_t cap);

/**
 * shmb_subscriber_recv_many() - copy out several records
 * @subscriber: subscriber
 * @data:	room, filled without padding between records
 * @cap:	bytes of @data
 * @lens:	filled with the bytes of each, room for @max; or NULL
 * @max:	at most so many
 *
 * The view describes the first one.
 *
 * Context: as shmb_subscriber_recv().
 * Return: how many, at least 1; else as shmb_subscriber_recv().
 */
int32_t shmb_subscriber_recv_many(struct shmb_subscriber *subscriber, void *data, uint32_t cap,
				  uint32_t *lens, uint32_t max);

/**
 * shmb_subscriber_peek() - look at the next records where they lie
 * @subscriber: subscriber
 * @max:	at most so many
 *
 * Finds consecutive records of one publisher and one length; the view says where: data, len,
 * count, stride. Their bytes are shared memory: a hostile publisher may change them while you
 * look, and so may any publisher under a lossy subscriber; shmb_subscriber_recv() copies.
 *
 * Context: as shmb_subscriber_recv(). Repeated calls give the same records until they are released.
 * Return: how many, at least 1; -EAGAIN; -EBADMSG; -ENOBUFS as shmb_subscriber_recv().
 */
int32_t shmb_subscriber_peek(struct shmb_subscriber *subscriber, uint32_t max);

/**
 * shmb_subscriber_release() - be done with the first @count records of those peeked at
 * @subscriber: subscriber
 * @count:	how many; 0 forgets the peek and keeps all of them for the next call
 *
 * Context: wait-free, no system call unless a publisher waits for the space.
 * Return: 0; -EINVAL: more than were peeked at; -ESTALE: lossy (or evicted meanwhile), and they
 *	   were overwritten while you looked: what you saw is void, it is counted as lost.
 */
int32_t shmb_subscriber_release(struct shmb_subscriber *subscriber, uint32_t count);

/**
 * shmb_subscriber_take_fds() - take the file descriptors that came with a record
 * @subscriber: subscriber
 * @fds:	room for them
 * @cap:	so many
 *
 * Of the record that was received last, or is peeked at; shmb_subscriber_recv_many() gives a record that
 * carries some alone. The view's n_fds says how many there are. They are the caller's, to be closed by
 * it, and are closed in programs that it executes (FD_CLOEXEC). What is not taken before the next call
 * that receives, peeks or waits is closed without having been opened here.
 *
 * Context: the thread that uses it; does not block.
 * Return: how many; 0: the record carries none, they were taken, or they are lost: the view's n_fds_lost
 *	   says so, as of records that were published before this subscriber came; -EMSGSIZE: more than
 *	   @cap; -EMFILE: more than this process may have open; after both they can still be taken;
 *	   -EBADMSG: others than the record says, none was opened.
 */
int32_t shmb_subscriber_take_fds(struct shmb_subscriber *subscriber, int32_t *fds, uint32_t cap);

/**
 * shmb_subscriber_hold() - keep the record that is peeked at, and go on reading
 * @subscriber: subscriber, of a channel with blocks
 *
 * As shmb_subscriber_release() of one record, but its bytes stay where they are until
 * shmb_subscriber_unhold(): the view's data and len say where. What lay in the lane is copied, and
 * the view says where to. A block that is held stalls nobody; its publisher does without it, also if
 * the subscriber is lossy.
 *
 * Context: wait-free, no system call; a record in the lane is copied to memory of its own.
 * Return: the number of the hold; -EINVAL: nothing is peeked at; -EDQUOT: the channel does not allow
 *	   more holds; -ESTALE: as shmb_subscriber_release(); -ENOMEM.
 */
int32_t shmb_subscriber_hold(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_unhold() - be done with a record that is held
 * @subscriber: subscriber
 * @hold:	what shmb_subscriber_hold() has returned
 *
 * Context: wait-free, no system call unless a publisher waits for the block.
 * Return: 0; -ENOENT: there is no such hold; -ESTALE: the broker has thrown this subscriber out
 *	   meanwhile, and the bytes may have been overwritten since; the hold is gone.
 */
int32_t shmb_subscriber_unhold(struct shmb_subscriber *subscriber, uint32_t hold);

/**
 * shmb_subscriber_wait() - wait for a record
 * @subscriber: subscriber
 * @timeout_ns: how long
 *
 * Context: the thread that uses it; blocks. No wake-up is lost whoever dies meanwhile.
 * Return: 0: there is something to receive (a record, or -EBADMSG); -ETIMEDOUT;
 *	   -EMFILE: the same, and a publisher could not be heard for want of an fd; it is tried
 *	   again.
 */
int32_t shmb_subscriber_wait(struct shmb_subscriber *subscriber, int64_t timeout_ns);

/**
 * shmb_subscriber_fd() - an fd for foreign event loops
 * @subscriber: subscriber
 *
 * An epoll fd, readable (POLLIN) whenever something may have come since shmb_subscriber_arm()
 * returned 0. Never read from it or close it.
 *
 * Context: any thread; does not block.
 * Return: the fd; -EMFILE, -ENOMEM.
 */
int32_t shmb_subscriber_fd(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_arm() - prepare to sleep on shmb_subscriber_fd()
 * @subscriber: subscriber
 *
 * The loop is: receive until -EAGAIN; arm; 1: receive again; 0: wait until the fd is readable.
 *
 * Context: the thread that uses it; does not block.
 * Return: 0: armed, nothing there; 1: there is something to receive.
 */
int32_t shmb_subscriber_arm(struct shmb_subscriber *subscriber);

/**
 * struct shmb_subscriber_stats - counters since the subscriber was opened
 * @subscriber_id: unique in this broker's life and after
 * @received:	  records
 * @lost:	  records lost because a publisher lapped this lossy or evicted subscriber
 * @sleeps:	  times it went to sleep
 * @backstops:	  bounded sleeps that ended by themselves and found data that nobody rang for: lost
 *		  wake-ups, should be 0
 * @pending:	  records published and not received yet, as far as the hints say; at least this
 * @n_publishers: publishers that it reads now, those that have gone but are not drained included
 * @pad:	  zero
 * @expired:	  records skipped because they were older than the channel's ttl_ms
 * @disordered:	  ordered channels: records received behind one that was published later
 * @conflated:	  records skipped because a newer one of their key was there, see conflate_len
 * @fds_lost:	  file descriptors that came with records received and that it could not have any more
 */
struct shmb_subscriber_stats {
	uint64_t subscriber_id;
	uint64_t received;
	uint64_t lost;
	uint64_t sleeps;
	uint64_t backstops;
	uint64_t pending;
	uint32_t n_publishers;
	uint32_t pad;
	uint64_t expired;
	uint64_t disordered;
	uint64_t conflated;
	uint64_t fds_lost;
};

/**
 * shmb_subscriber_stats() - read the counters
 * @subscriber: subscriber
 * @stats:	filled
 * @cap:	sizeof(struct shmb_subscriber_stats)
 *
 * Context: the thread that uses it; does not block.
 * Return: 0.
 */
int32_t shmb_subscriber_stats(struct shmb_subscriber *subscriber,
			      struct shmb_subscriber_stats *stats, uint32_t cap);

/* ---- state ------------------------------------------------------------------------------------ */

/*
 * On a channel of the pattern SHMB_CHANNEL_STATE there are no records but keys, each with the latest
 * value. A publisher claims keys and puts their values; nobody else can write them until it disclaims
 * them, is closed or dies. Values outlive it, and stay until there are newer ones or the channel ends,
 * which it does when nobody has it open: the broker keeps them. Subscribers
 * read them whenever they like, and wait for changes with shmb_subscriber_wait(), an fd or a wait
 * set: there is something if a key has a version that this subscriber has not been told of by
 * shmb_subscriber_next() or got by shmb_subscriber_get(). A key is known by its index, the same in
 * all processes for the life of the channel. Calls for records return -EOPNOTSUPP.
 */

/**
 * shmb_publisher_claim() - become the one that writes a key
 * @publisher: publisher of a state channel
 * @key:       any bytes
 * @key_len:   1 to 64
 *
 * The view's term is that of the claim: higher than that of any claim before. What was put under an
 * older one is read until the first value is put under this one.
 *
 * Context: the thread that uses it; blocks for one round trip to the broker.
 * Return: the key's index; -EBUSY: somebody else has claimed it, shmb_last_error() names the process;
 *	   -EDQUOT: the channel has max_keys keys; -ESTALE; -ENOTCONN; -ETIMEDOUT; -EOPNOTSUPP.
 */
int32_t shmb_publisher_claim(struct shmb_publisher *publisher, const void *key, uint32_t key_len);

/**
 * shmb_publisher_disclaim() - let others claim a key; its value stays
 * @publisher: publisher
 * @key:       index of a key that it has claimed
 *
 * Context: as shmb_publisher_claim().
 * Return: 0; -EPERM: it has not; -ESTALE; -ENOTCONN; -ETIMEDOUT; -EOPNOTSUPP.
 */
int32_t shmb_publisher_disclaim(struct shmb_publisher *publisher, uint32_t key);

/**
 * shmb_publisher_put() - replace the value of a key
 * @publisher: publisher
 * @key:       index of a key that it has claimed
 * @data:      the value
 * @len:       its bytes; on a typed channel exactly the schema's record_len
 *
 * Context: the first value after a claim needs a round trip to the broker. From then on wait-free,
 * whatever subscribers do, but for the wake-up of those that sleep, one system call each. A process
 * killed inside has replaced the value wholly or not at all.
 * Return: 0; -EPERM: not claimed; -EMSGSIZE: longer than values can be; -EINVAL: not the schema's
 *	   length; -ESTALE: the broker has evicted this publisher; -EOPNOTSUPP; the first time also
 *	   -ENOTCONN and -ETIMEDOUT.
 */
int32_t shmb_publisher_put(struct shmb_publisher *publisher, uint32_t key, const void *data,
			   uint32_t len);

/**
 * shmb_publisher_erase() - from now on the key has no value
 * @publisher: publisher
 * @key:       index of a key that it has claimed
 *
 * To subscribers it is a change like any other.
 *
 * Context: as shmb_publisher_put().
 * Return: as shmb_publisher_put().
 */
int32_t shmb_publisher_erase(struct shmb_publisher *publisher, uint32_t key);

/**
 * shmb_subscriber_find() - the index of a key
 * @subscriber: subscriber of a state channel
 * @key:	its bytes
 * @len:	how many
 *
 * Context: does not block; looks at each key of the channel.
 * Return: the index; -ENOENT: nobody has claimed it so far; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_find(struct shmb_subscriber *subscriber, const void *key, uint32_t len);

/**
 * shmb_subscriber_n_keys() - how many keys have been claimed so far
 * @subscriber: subscriber
 *
 * Context: does not block.
 * Return: their number: indices are below it; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_n_keys(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_key() - the bytes of a key, and whose it is
 * @subscriber: subscriber
 * @key:	index
 * @name:	room for the key
 * @cap:	bytes of @name; 64 are enough
 *
 * The view's publisher_id says who has claimed it now, 0 for nobody, and its term under which claim.
 *
 * Context: does not block.
 * Return: its bytes, copied if they fit into @cap; -EINVAL: there is no such key; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_key(struct shmb_subscriber *subscriber, uint32_t key, void *name,
			    uint32_t cap);

/**
 * shmb_subscriber_get() - copy out the latest value of a key
 * @subscriber: subscriber
 * @key:	index
 * @data:	room for the value
 * @cap:	bytes of @data
 *
 * The view's sequence is the value's version: it counts what was put for this key, whoever put it, and
 * only grows as long as publishers are honest. The view's term says under which claim it was put, its
 * publisher_id by whom; 0: by somebody who does not have the key any more.
 *
 * Context: never waits for the publisher, alive, stopped or dead; bounded.
 * Return: bytes of the value; -ENODATA: there is none; -EMSGSIZE: the view's len is more than @cap;
 *	   -EAGAIN: it was overwritten each time while it was copied, or its publisher has to move to
 *	   another segment first, which it does with its next call; -EBADMSG: the publisher of this
 *	   key wrote what cannot be a value; -EINVAL: there is no such key; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_get(struct shmb_subscriber *subscriber, uint32_t key, void *data,
			    uint32_t cap);

/**
 * shmb_subscriber_next() - the next key that has changed
 * @subscriber: subscriber
 *
 * Each is told of once for all its values so far, in turns. To a new subscriber every key that has
 * a value has changed.
 *
 * Context: does not block.
 * Return: its index; -EAGAIN: no key has changed; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_next(struct shmb_subscriber *subscriber);

/**
 * shmb_subscriber_wait_key() - shmb_subscriber_wait() for one key
 * @subscriber: subscriber
 * @key:	index
 * @timeout_ns: how long
 *
 * Context: the thread that uses it; blocks.
 * Return: 0: it has changed; -ETIMEDOUT; -EINVAL: there is no such key; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_wait_key(struct shmb_subscriber *subscriber, uint32_t key,
				 int64_t timeout_ns);

/**
 * struct shmb_state_value - a value in a snapshot; @len bytes follow, padded with zeroes to 8
 * @version:	  as the view's sequence
 * @term:	  under which claim it was put
 * @publisher_id: by whom; 0: by somebody who does not have the key any more
 * @key:	  index
 * @len:	  bytes of the value
 */
struct shmb_state_value {
	uint64_t version;
	uint64_t term;
	uint64_t publisher_id;
	uint32_t key;
	uint32_t len;
};

/**
 * shmb_subscriber_snapshot() - copy out the values of all keys
 * @subscriber: subscriber
 * @data:	room for them: struct shmb_state_value and value, again and again
 * @cap:	bytes of @data
 *
 * Each value is whole; together they are no transaction: one may be newer than another was ever at
 * the same time. Keys without a value, or with bytes that cannot be one, are left out. The view's len
 * says how many bytes there are. Changes that have not been told of still will be.
 *
 * Context: never waits for publishers; bounded.
 * Return: how many values; -EMSGSIZE: the view's len is more than @cap; -EAGAIN: one of them changes
 *	   faster than it can be copied; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_snapshot(struct shmb_subscriber *subscriber, void *data, uint32_t cap);

/* ---- queue ------------------------------------------------------------------------------------ */

/*
 * On a channel of the pattern SHMB_CHANNEL_QUEUE each record is for one subscriber, a worker, which its
 * publisher chooses: of those with credit the one that has least to do. The worker takes it, and says
 * when it is done, or that it has failed; until then the publisher keeps it. If the worker is closed,
 * dies or is thrown out before, the publisher gives what is not done to others, with the next call of
 * any of its functions that publish or wait: who has published and has nothing else to do calls
 * shmb_publisher_wait_done(), or lets its event loop look at shmb_publisher_fd(). Once the publisher
 * has gone the broker does that, whatever credit the others have; to them it is another publisher's.
 * shmb_publisher_send() and its kin return -EAGAIN while no worker has credit. A record has at most
 * lane_len / 8 - 24 bytes.
 *
 * The dead letters of a queue are in the queue of its name with SHMB_QUEUE_DEAD behind it. A record
 * stays where it is until some worker there has credit for it. Calls for the records of streams
 * return -EOPNOTSUPP.
 */
#define SHMB_QUEUE_DEAD "/dead"

/**
 * shmb_publisher_wait_done() - wait until workers have done all records
 * @publisher:	publisher of a queue
 * @timeout_ns: how long
 *
 * Context: the thread that uses it; blocks.
 * Return: 0; -ETIMEDOUT; -EBUSY: a loan is out; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_publisher_wait_done(struct shmb_publisher *publisher, int64_t timeout_ns);

/**
 * shmb_subscriber_take() - copy out the next record for this worker, and begin to work on it
 * @subscriber: subscriber of a queue
 * @data:	room for the record
 * @cap:	bytes of @data
 *
 * The view says type, sequence, publisher and attempt; its term is the job.
 *
 * Context: wait-free, but for a system call if a publisher waits.
 * Return: bytes of the record; -EAGAIN: there is none; -EMSGSIZE: it stays where it is, the view's
 *	   len says how long it is; -EBADMSG; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_take(struct shmb_subscriber *subscriber, void *data, uint32_t cap);

/**
 * shmb_subscriber_take_many() - shmb_subscriber_take() for several records
 * @subscriber: subscriber of a queue
 * @data:	room for the records, one after the other without padding
 * @cap:	bytes of @data
 * @lens:	stores the bytes of each, or NULL
 * @jobs:	stores the job of each
 * @max:	at most so many
 *
 * Context: as shmb_subscriber_take().
 * Return: how many; else as shmb_subscriber_take().
 */
int32_t shmb_subscriber_take_many(struct shmb_subscriber *subscriber, void *data, uint32_t cap,
				  uint32_t *lens, uint64_t *jobs, uint32_t max);

/**
 * shmb_subscriber_done() - the work on a record is done
 * @subscriber: subscriber
 * @job:	from the view
 *
 * Once it has returned 0 nobody is given the record again. In any order.
 *
 * Context: as shmb_subscriber_take().
 * Return: 0; -ENOENT: there is no such job in work; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_done(struct shmb_subscriber *subscriber, uint64_t job);

/**
 * shmb_subscriber_done_many() - shmb_subscriber_done() for several jobs
 * @subscriber: subscriber
 * @jobs:	of them
 * @count:	how many
 *
 * Context: as shmb_subscriber_take().
 * Return: 0; -ENOENT: one of them is not in work, and nothing has happened; -ESTALE; -EOPNOTSUPP.
 */
int32_t shmb_subscriber_done_many(struct shmb_subscriber *subscriber, const uint64_t *jobs,
				  uint32_t count);

/**
 * shmb_subscriber_fail() - the work on a record has failed
 * @subscriber: subscriber
 * @job:	from the view
 *
 * The worker gets it again, after what it has not taken yet, as the next attempt.
 *
 * Context: as shmb_subscriber_take().
 * Return: as shmb_subscriber_done().
 */
int32_t shmb_subscriber_fail(struct shmb_subscriber *subscriber, uint64_t job);
/* ---- calls ------------------------------------------------------------------------------------ */

/*
 * On a channel of the pattern SHMB_CHANNEL_CALL callers send requests, and servers answer each with
 * one reply, with several, or with a failure. Of several servers the one with the fewest open calls of
 * this caller gets the request. What goes between a caller and a server nobody else can read.
 *
 * Each call ends exactly once: with its last reply, with the end of its replies, with a failure, at
 * its deadline, when it is cancelled, or at once with -ECONNRESET if its server dies, is closed or is
 * thrown out; nobody knows then whether the request was worked on. Replies that come later are dropped
 * and counted. While there is no broker calls go on between a caller and servers that have answered it
 * before: the first reply takes a broker, and so does learning of a death.
 *
 * On a typed channel each request and each reply has the length of its struct; what a failure says is
 * text. A server that gets another length parts from the caller, and a call that does ends with -EBADMSG.
 */

/**
 * struct shmb_call_view - process-private block of a caller or server that its calls fill
 * @data:	 address of what is held or on loan
 * @len:	 bytes of the request, the reply, the failure's sentence or the loan
 * @call:	 the call
 * @type:	 the application's type of the request or reply
 * @code:	 of a failure
 * @more:	 1: other replies follow
 * @pid:	 caller: of the server; server: of the caller
 * @uid:	 of its user
 * @pad0:	 zero
 * @peer_id:	 unique in this broker's life and after
 * @deadline_ns: server: CLOCK_MONOTONIC of when the caller gives up, to some milliseconds; 0: it does
 *		 not say
 * @pad1:	 zero
 */
struct shmb_call_view {
	uint64_t data;
	uint32_t len;
	int32_t call;
	uint32_t type;
	int32_t code;
	uint32_t more;
	uint32_t pid;
	uint32_t uid;
	uint32_t pad0;
	uint64_t peer_id;
	uint64_t deadline_ns;
	uint8_t pad1[8];
};

#define SHMB_CALLER_FAIL_FAST (1u << 0) /* no server is there: -EHOSTUNREACH at once */
#define SHMB_CALLER_NO_SPIN   (1u << 1) /* do not poll before sleeping */
#define SHMB_CALLER_TRUSTING  (1u << 2) /* as SHMB_PUBLISHER_TRUSTING, for requests */

/**
 * struct shmb_caller_options - zeroes mean the default
 * @options_len: sizeof(struct shmb_caller_options)
 * @flags:	 SHMB_CALLER_*
 * @spin_ns:	 as in struct shmb_subscriber_options
 * @pad:	 zero
 */
struct shmb_caller_options {
	uint32_t options_len;
	uint32_t flags;
	uint32_t spin_ns;
	uint32_t pad;
};

/**
 * shmb_caller_open() - start to call on a channel
 * @channel: channel
 * @options: or NULL
 * @ret_caller: stores the caller
 *
 * Context: any thread; blocks for two round trips to the broker, and two for each server.
 * Return: as shmb_publisher_open(); -EOPNOTSUPP: it is no call channel.
 */
int32_t shmb_caller_open(struct shmb_channel *channel, const struct shmb_caller_options *options,
			 struct shmb_caller **ret_caller);

/**
 * shmb_caller_close() - stop calling; open calls are cancelled
 * @caller: or NULL
 *
 * Context: the thread that uses it; does not wait for the broker.
 * Return: 0; -EBUSY: it is in a wait set, nothing was closed.
 */
int32_t shmb_caller_close(struct shmb_caller *caller);

/**
 * shmb_caller_view() - the caller's view block
 * @caller: caller
 *
 * Context: any thread; does not block.
 * Return: its address, the same for as long as the caller is open.
 */
struct shmb_call_view *shmb_caller_view(struct shmb_caller *caller);

/**
 * shmb_caller_call() - send a request and wait for its reply
 * @caller:	caller
 * @type:	0 to 4095, handed to the server: which method it is, say
 * @request:	the request
 * @len:	its bytes
 * @reply:	room for the reply
 * @cap:	bytes of @reply
 * @timeout_ns:	how long at most, the wait for a server included
 *
 * Context: the thread that uses it; blocks. No system call if the server polls and answers at once.
 * Return: bytes of the reply; -EINVAL: not the length of the schema's request; -EBADMSG: nor was what
 *	   came that of its reply; -ETIMEDOUT: the server is told, and will find the call cancelled;
 *	   -ECONNRESET; -EREMOTEIO: the server has failed, the view's code and len say how, and @reply
 *	   is its sentence; -ENODATA: it has ended without a reply; -EPROTO: it replies more than once,
 *	   see shmb_caller_start(); -EMSGSIZE: the request is longer than a record can be, or the reply
 *	   than @cap, then the view's call and len are for shmb_caller_recv(); -EHOSTUNREACH: no
 *	   server, with SHMB_CALLER_FAIL_FAST; -EBUSY: too many calls are open; -ESTALE; what kept us
 *	   from opening a lane to a server: -EDQUOT, -ENOSPC, -EMFILE, -ENOMEM.
 */
int32_t shmb_caller_call(struct shmb_caller *caller, uint32_t type, const void *request,
			 uint32_t len, void *reply, uint32_t cap, int64_t timeout_ns);

/**
 * shmb_caller_start() - send a request; replies are asked for later
 * @caller:	caller
 * @type:	as for shmb_caller_call()
 * @request:	the request
 * @len:	its bytes
 * @timeout_ns:	after which time the call ends
 *
 * Context: the thread that uses it; blocks while there is no server or no room in the lanes of those
 * that are there, until the timeout.
 * Return: the call, at least 1; else as shmb_caller_call().
 */
int32_t shmb_caller_start(struct shmb_caller *caller, uint32_t type, const void *request,
			  uint32_t len, int64_t timeout_ns);

/**
 * shmb_caller_loan() - get memory to write a request into, with no copy
 * @caller:	caller
 * @len:	its bytes at most
 * @timeout_ns:	how long to wait for a server, and for room
 *
 * It lies where the server that is to get it will read it, in the lane or in a block; the view says
 * where, and @len bytes are the caller's until it is started or cancelled. Until then there is no other
 * request, but replies come.
 *
 * Context: the thread that uses it; blocks as shmb_caller_start() does.
 * Return: 0; -EBUSY: one is on loan; else as shmb_caller_start().
 */
int32_t shmb_caller_loan(struct shmb_caller *caller, uint32_t len, int64_t timeout_ns);

/**
 * shmb_caller_start_loan() - send the request that was written
 * @caller:	caller
 * @type:	as for shmb_caller_call()
 * @len:	its bytes, at most those of the loan
 * @timeout_ns:	after which time the call ends
 *
 * Context: the thread that uses it; does not block.
 * Return: the call, at least 1; -EINVAL: nothing is on loan, or another length; -EBUSY: too many calls
 *	   are open, the loan stays; -ECONNRESET: the server has gone, and the loan with it.
 */
int32_t shmb_caller_start_loan(struct shmb_caller *caller, uint32_t type, uint32_t len,
			       int64_t timeout_ns);

/**
 * shmb_caller_cancel_loan() - send nothing
 * @caller: caller
 *
 * Context: the thread that uses it; does not block.
 * Return: 0; -EINVAL: nothing is on loan.
 */
int32_t shmb_caller_cancel_loan(struct shmb_caller *caller);

/**
 * shmb_caller_wait() - wait until a request can be sent at once
 * @caller:	caller
 * @len:	its bytes
 * @timeout_ns:	how long at most
 *
 * Context: the thread that uses it; blocks.
 * Return: 0; -ETIMEDOUT: there is no server, or no room; else as shmb_caller_start().
 */
int32_t shmb_caller_wait(struct shmb_caller *caller, uint32_t len, int64_t timeout_ns);

/**
 * shmb_caller_recv() - wait for the next reply
 * @caller:	caller
 * @call:	of this call; 0: of any
 * @reply:	room for it
 * @cap:	bytes of @reply
 * @timeout_ns:	how long at most
 *
 * The view says of which call it is, also if there is none because the call has ended, and whether it
 * is the last one. After the last one, and after each result but -ETIMEDOUT, -EMSGSIZE, -ENOENT and
 * -ESTALE, the call is no more.
 *
 * Context: the thread that uses it; blocks.
 * Return: bytes of the reply; -ETIMEDOUT: none has come, the call goes on; -ETIME: the call's own time
 *	   is up; -ENODATA: there is no reply any more; -ECONNRESET; -EREMOTEIO; -ENOBUFS: too much
 *	   of it lay here unasked for; -EBADMSG: it has not the length of the schema's; -EMSGSIZE: it is longer than @cap and can be asked for again;
 *	   -ENOENT: there is no such call, or none at all; -ESTALE.
 */
int32_t shmb_caller_recv(struct shmb_caller *caller, int32_t call, void *reply, uint32_t cap,
			 int64_t timeout_ns);

/**
 * shmb_caller_recv_hold() - wait for the next reply, and hold it
 * @caller:	caller
 * @call:	of this call; 0: of any
 * @timeout_ns:	how long at most
 *
 * As shmb_caller_recv(), of any length and without a copy if it lies in a block: the view's data says
 * where it is, until shmb_caller_unhold(), whatever becomes of the call and of the server. So many can
 * be held at a time as the channel's max_holds says. A hostile server could change it meanwhile.
 *
 * Context: the thread that uses it; blocks.
 * Return: the hold, at least 0; -EDQUOT: as many are held as may be, or the channel has no blocks; else
 *	   as shmb_caller_recv().
 */
int32_t shmb_caller_recv_hold(struct shmb_caller *caller, int32_t call, int64_t timeout_ns);

/**
 * shmb_caller_unhold() - be done with a reply
 * @caller: caller
 * @hold:   from shmb_caller_recv_hold()
 *
 * Context: the thread that uses it; does not block.
 * Return: as shmb_subscriber_unhold().
 */
int32_t shmb_caller_unhold(struct shmb_caller *caller, uint32_t hold);

/**
 * shmb_caller_cancel() - end a call; its server is told
 * @caller: caller
 * @call:   call
 *
 * Context: the thread that uses it; does not block.
 * Return: 0; -ENOENT: there is no such call.
 */
int32_t shmb_caller_cancel(struct shmb_caller *caller, int32_t call);

/**
 * shmb_caller_fd() - an fd for foreign event loops, as shmb_subscriber_fd()
 * @caller: caller
 *
 * It tells of replies and of servers that have gone, not of deadlines.
 *
 * Context: any thread; does not block.
 * Return: the fd; -EMFILE, -ENOMEM.
 */
int32_t shmb_caller_fd(struct shmb_caller *caller);

/**
 * shmb_caller_arm() - prepare to sleep on shmb_caller_fd()
 * @caller: caller
 *
 * Context: the thread that uses it; does not block.
 * Return: 0: armed, nothing there; 1: call shmb_caller_recv() with a timeout of 0 first.
 */
int32_t shmb_caller_arm(struct shmb_caller *caller);

/**
 * struct shmb_caller_stats - counters since the caller was opened
 * @caller_id: unique in this broker's life and after
 * @calls:     requests sent
 * @replies:   received
 * @late:      replies to calls that had ended
 * @timeouts:  calls that ended because their time was up
 * @resets:    calls that ended because their server had gone
 * @n_open:    calls open now
 * @n_servers: servers now
 */
struct shmb_caller_stats {
	uint64_t caller_id;
	uint64_t calls;
	uint64_t replies;
	uint64_t late;
	uint64_t timeouts;
	uint64_t resets;
	uint32_t n_open;
	uint32_t n_servers;
};

/**
 * shmb_caller_stats() - read the counters
 * @caller: caller
 * @stats:  filled
 * @cap:    sizeof(struct shmb_caller_stats)
 *
 * Context: the thread that uses it; does not block.
 * Return: 0.
 */
int32_t shmb_caller_stats(struct shmb_caller *caller, struct shmb_caller_stats *stats,
			  uint32_t cap);

#define SHMB_SERVER_NO_SPIN  (1u << 0) /* do not poll before sleeping */
#define SHMB_SERVER_TRUSTING (1u << 1) /* as SHMB_PUBLISHER_TRUSTING, for replies */

/**
 * struct shmb_server_options - zeroes mean the default
 * @options_len: sizeof(struct shmb_server_options)
 * @flags:	 SHMB_SERVER_*
 * @spin_ns:	 as in struct shmb_subscriber_options
 * @pad:	 zero
 */
struct shmb_server_options {
	uint32_t options_len;
	uint32_t flags;
	uint32_t spin_ns;
	uint32_t pad;
};

/**
 * shmb_server_open() - start to serve on a channel
 * @channel: channel
 * @options: or NULL
 * @ret_server: stores the server
 *
 * Several servers share the calls. One is used by one thread at a time: for several threads open
 * several.
 *
 * Context: any thread; blocks for two round trips to the broker.
 * Return: as shmb_publisher_open(); -EOPNOTSUPP: it is no call channel.
 */
int32_t shmb_server_open(struct shmb_channel *channel, const struct shmb_server_options *options,
			 struct shmb_server **ret_server);

/**
 * shmb_server_close() - stop serving; open calls end with -ECONNRESET
 * @server: or NULL
 *
 * Context: the thread that uses it; does not wait for the broker.
 * Return: 0; -EBUSY: it is in a wait set, nothing was closed.
 */
int32_t shmb_server_close(struct shmb_server *server);

/**
 * shmb_server_view() - the server's view block
 * @server: server
 *
 * Context: any thread; does not block.
 * Return: its address, the same for as long as the server is open.
 */
struct shmb_call_view *shmb_server_view(struct shmb_server *server);

/**
 * shmb_server_recv() - wait for the next request
 * @server:	server
 * @data:	room for it
 * @cap:	bytes of @data
 * @timeout_ns:	how long at most
 *
 * The view has the call, its type, its deadline, and who the caller is. Requests whose deadline has
 * passed or whose caller has gone are counted and not handed out, nor are those that are known to be
 * cancelled; that comes behind a request, and shmb_server_cancelled() looks for it.
 *
 * 4096 calls can be open. Each caller may have some, at least 2048 / max_subscribers, and beyond that as
 * many as are left for the others; who has them is not listened to until one of them ends, be it
 * because nobody waits for it any more: then its number is not known any more either.
 *
 * Context: the thread that uses it; blocks. It opens a lane to each new caller: two round trips to the
 * broker.
 * Return: bytes of the request; -ETIMEDOUT; -EMSGSIZE: longer than @cap, it stays the next one and the
 *	   view's len says its length; -ESTALE; -ENOMEM.
 */
int32_t shmb_server_recv(struct shmb_server *server, void *data, uint32_t cap, int64_t timeout_ns);

/**
 * shmb_server_recv_hold() - wait for the next request, and hold it
 * @server:	server
 * @timeout_ns:	how long at most
 *
 * As shmb_server_recv(), of any length and without a copy if it lies in a block: the view's data says
 * where it is, until shmb_server_unhold(), whatever becomes of the call and of the caller. So many can
 * be held at a time as the channel's max_holds says. A hostile caller could change it meanwhile.
 *
 * Context: the thread that uses it; blocks.
 * Return: the hold, at least 0; -EDQUOT: as many are held as may be, or the channel has no blocks; else
 *	   as shmb_server_recv().
 */
int32_t shmb_server_recv_hold(struct shmb_server *server, int64_t timeout_ns);

/**
 * shmb_server_unhold() - be done with a request
 * @server: server
 * @hold:   from shmb_server_recv_hold()
 *
 * Context: the thread that uses it; does not block.
 * Return: as shmb_subscriber_unhold().
 */
int32_t shmb_server_unhold(struct shmb_server *server, uint32_t hold);

#define SHMB_REPLY_MORE (1u << 0) /* it is not the last one */

/**
 * shmb_server_reply() - send a reply
 * @server:	server
 * @call:	call, from the view
 * @type:	0 to 4095, handed to the caller
 * @data:	the reply
 * @len:	its bytes
 * @flags:	SHMB_REPLY_MORE: others follow; else the call ends
 * @timeout_ns:	how long to wait while the caller has a whole lane of replies to read
 *
 * Context: the thread that uses it; with a timeout of 0 wait-free but for the wake-up of a caller that
 * sleeps, one system call.
 * Return: 0; -ETIMEDOUT: no room, the call goes on; -ECANCELED: it was cancelled; -ECONNRESET: the
 *	   caller has gone; the call has ended in both cases; -ENOENT: there is no such call;
 *	   -EMSGSIZE: longer than a record can be; -EINVAL: not the length of the schema's; -ESTALE.
 */
int32_t shmb_server_reply(struct shmb_server *server, int32_t call, uint32_t type, const void *data,
			  uint32_t len, uint32_t flags, int64_t timeout_ns);

/**
 * shmb_server_loan() - get memory to write a reply into, with no copy
 * @server:	server
 * @call:	call, from the view
 * @len:	its bytes at most
 * @timeout_ns:	as for shmb_server_reply()
 *
 * It lies where the caller will read it, in the lane or in a block; the view says where, and @len bytes
 * are the server's until it is sent or cancelled. Until then the server sends nothing else, but
 * requests come.
 *
 * Context: as shmb_server_reply(); the first long reply to a caller, and more of them at a time than
 * before, take two round trips to the broker.
 * Return: as shmb_server_reply(); -EBUSY: one is on loan.
 */
int32_t shmb_server_loan(struct shmb_server *server, int32_t call, uint32_t len,
			 int64_t timeout_ns);

/**
 * shmb_server_reply_loan() - send the reply that was written
 * @server: server
 * @type:   0 to 4095, handed to the caller
 * @len:    its bytes, at most those of the loan
 * @flags:  as for shmb_server_reply()
 *
 * Context: the thread that uses it; does not block.
 * Return: 0; -EINVAL: nothing is on loan, or another length; -ECANCELED, -ECONNRESET: as for
 *	   shmb_server_reply(), the loan and the call are no more; -ENOENT: the call is no more, nor is
 *	   the loan.
 */
int32_t shmb_server_reply_loan(struct shmb_server *server, uint32_t type, uint32_t len,
			       uint32_t flags);

/**
 * shmb_server_cancel_loan() - send nothing; the call stays open
 * @server: server
 *
 * Context: the thread that uses it; does not block.
 * Return: 0; -EINVAL: nothing is on loan.
 */
int32_t shmb_server_cancel_loan(struct shmb_server *server);

/**
 * shmb_server_end() - end a call without another reply
 * @server:	server
 * @call:	call
 * @timeout_ns:	as for shmb_server_reply()
 *
 * Context: as shmb_server_reply().
 * Return: as shmb_server_reply().
 */
int32_t shmb_server_end(struct shmb_server *server, int32_t call, int64_t timeout_ns);

/**
 * shmb_server_fail() - end a call with a failure
 * @server:	server
 * @call:	call
 * @code:	for the caller's program
 * @text:	for people, @len bytes
 * @len:	bytes of @text, at most 1024
 * @timeout_ns:	as for shmb_server_reply()
 *
 * Context: as shmb_server_reply().
 * Return: as shmb_server_reply().
 */
int32_t shmb_server_fail(struct shmb_server *server, int32_t call, int32_t code, const char *text,
			 uint32_t len, int64_t timeout_ns);

/**
 * shmb_server_cancelled() - is it of no use any more to work on a call?
 * @server: server
 * @call:   call
 *
 * Looks at what callers have sent since: requests are kept for shmb_server_recv().
 *
 * Context: the thread that uses it; does not block.
 * Return: 1: it was cancelled, its deadline has passed, or its caller has gone; 0; -ENOENT: there is no
 *	   such call.
 */
int32_t shmb_server_cancelled(struct shmb_server *server, int32_t call);

/**
 * shmb_server_fd() - an fd for foreign event loops, as shmb_subscriber_fd()
 * @server: server
 *
 * Context: any thread; does not block.
 * Return: the fd; -EMFILE, -ENOMEM.
 */
int32_t shmb_server_fd(struct shmb_server *server);

/**
 * shmb_server_arm() - prepare to sleep on shmb_server_fd()
 * @server: server
 *
 * Context: the thread that uses it; does not block.
 * Return: 0: armed, nothing there; 1: call shmb_server_recv() with a timeout of 0 first.
 */
int32_t shmb_server_arm(struct shmb_server *server);

/**
 * struct shmb_server_stats - counters since the server was opened
 * @server_id: unique in this broker's life and after
 * @requests:  handed out
 * @replies:   sent
 * @expired:   requests that were not handed out because their deadline had passed
 * @cancelled: calls that were cancelled, or whose caller went, before they were answered
 * @n_open:    calls open now
 * @n_callers: callers now
 * @n_held:    of them, those whose requests wait because they have as many calls open as they may
 * @pad:       zero
 */
struct shmb_server_stats {
	uint64_t server_id;
	uint64_t requests;
	uint64_t replies;
	uint64_t expired;
	uint64_t cancelled;
	uint32_t n_open;
	uint32_t n_callers;
	uint32_t n_held;
	uint32_t pad;
};

/**
 * shmb_server_stats() - read the counters
 * @server: server
 * @stats:  filled
 * @cap:    sizeof(struct shmb_server_stats)
 *
 * Context: the thread that uses it; does not block.
 * Return: 0.
 */
int32_t shmb_server_stats(struct shmb_server *server, struct shmb_server_stats *stats,
			  uint32_t cap);

/* ---- wait set --------------------------------------------------------------------------------- */

#define SHMB_READY_SUBSCRIBER 1u
#define SHMB_READY_FD	      2u
#define SHMB_READY_CALLER     3u
#define SHMB_READY_SERVER     4u

/**
 * struct shmb_ready - one thing that is ready
 * @cookie: as given when it was added
 * @kind:   SHMB_READY_*
 * @events: an fd's POLLIN, POLLOUT, ... as in poll(2)
 */
struct shmb_ready {
	uint64_t cookie;
	uint32_t kind;
	uint32_t events;
};

/**
 * shmb_waitset_open() - one place to wait for many subscribers, callers, servers and fds
 * @client:	 client
 * @ret_waitset: stores the wait set
 *
 * Sleeps in io_uring where the kernel allows it, else in epoll; $SHMBROKER_IO=epoll or =uring
 * decides for it.
 *
 * Context: any thread; does not block.
 * Return: 0; -ENOMEM; -EMFILE.
 */
int32_t shmb_waitset_open(struct shmb_client *client, struct shmb_waitset **ret_waitset);

/**
 * shmb_waitset_close() - close a wait set; what is in it stays open
 * @waitset: or NULL
 *
 * Context: the thread that uses it; does not block.
 * Return: 0.
 */
int32_t shmb_waitset_close(struct shmb_waitset *waitset);

/**
 * shmb_waitset_add() - add a subscriber of the same client
 * @waitset:	wait set
 * @subscriber: subscriber; from now on only the wait set's thread uses it
 * @cookie:	comes back when it is ready
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -EEXIST: it is in a wait set; -ENOMEM; -EMFILE.
 */
int32_t shmb_waitset_add(struct shmb_waitset *waitset, struct shmb_subscriber *subscriber,
			 uint64_t cookie);

/**
 * shmb_waitset_add_caller() - add a caller of the same client
 * @waitset: wait set
 * @caller:  caller; from now on only the wait set's thread uses it
 * @cookie:  comes back when it is ready
 *
 * It is ready when one of its calls has a reply or has ended, be it because its time is up:
 * shmb_caller_recv() of any call, with a timeout of 0, says which. Now and then there is nothing then.
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -EEXIST: it is in a wait set; -ENOMEM; -EMFILE.
 */
int32_t shmb_waitset_add_caller(struct shmb_waitset *waitset, struct shmb_caller *caller,
				uint64_t cookie);

/**
 * shmb_waitset_add_server() - add a server of the same client
 * @waitset: wait set
 * @server:  server; from now on only the wait set's thread uses it
 * @cookie:  comes back when it is ready
 *
 * It is ready when there is a request: ask shmb_server_recv() with a timeout of 0. Now and then there
 * is none then.
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -EEXIST: it is in a wait set; -ENOMEM; -EMFILE.
 */
int32_t shmb_waitset_add_server(struct shmb_waitset *waitset, struct shmb_server *server,
				uint64_t cookie);

/**
 * shmb_waitset_add_fd() - add an fd of the caller's
 * @waitset: wait set
 * @fd:	     stays the caller's; remove it before it is closed
 * @events:  POLLIN, POLLOUT, ... as in poll(2), level-triggered
 * @cookie:  comes back when it is ready
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -EEXIST; -EPERM: an fd that cannot be polled; -EBADF; -ENOMEM.
 */
int32_t shmb_waitset_add_fd(struct shmb_waitset *waitset, int32_t fd, uint32_t events,
			    uint64_t cookie);

/**
 * shmb_waitset_remove() - take a subscriber out
 * @waitset:	wait set
 * @subscriber: subscriber
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -ENOENT: it is not in there.
 */
int32_t shmb_waitset_remove(struct shmb_waitset *waitset, struct shmb_subscriber *subscriber);

/**
 * shmb_waitset_remove_caller() - take a caller out
 * @waitset: wait set
 * @caller:  caller
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -ENOENT: it is not in there.
 */
int32_t shmb_waitset_remove_caller(struct shmb_waitset *waitset, struct shmb_caller *caller);

/**
 * shmb_waitset_remove_server() - take a server out
 * @waitset: wait set
 * @server:  server
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -ENOENT: it is not in there.
 */
int32_t shmb_waitset_remove_server(struct shmb_waitset *waitset, struct shmb_server *server);

/**
 * shmb_waitset_remove_fd() - take an fd out
 * @waitset: wait set
 * @fd:	     fd
 *
 * Context: the thread that uses the wait set; does not block.
 * Return: 0; -ENOENT.
 */
int32_t shmb_waitset_remove_fd(struct shmb_waitset *waitset, int32_t fd);

/**
 * shmb_waitset_wait() - wait for any of them
 * @waitset:	wait set
 * @ready:	filled, room for @max
 * @max:	at most so many, fairly over calls
 * @timeout_ns: how long
 *
 * What was ready and not emptied is reported again.
 *
 * Context: the thread that uses the wait set; blocks. For a server it opens lanes to new callers, for a
 * caller to new servers: two round trips to the broker each.
 * Return: how many, at least 1; -ETIMEDOUT; -EMFILE: the same, and a publisher could not be heard
 *	   for want of an fd; it is tried again.
 */
int32_t shmb_waitset_wait(struct shmb_waitset *waitset, struct shmb_ready *ready, uint32_t max,
			  int64_t timeout_ns);

/**
 * shmb_waitset_fd() - an fd for foreign event loops
 * @waitset: wait set
 *
 * An epoll fd, readable whenever something in the set may have become ready since
 * shmb_waitset_wait(..., 0) last returned -ETIMEDOUT. Never read from it or close it.
 *
 * Context: the thread that uses the wait set; does not block. The wait set uses epoll from then on.
 * Return: the fd; -EMFILE, -ENOMEM.
 */
int32_t shmb_waitset_fd(struct shmb_waitset *waitset);

/**
 * shmb_waitset_backend() - how it sleeps
 * @waitset: wait set
 *
 * Context: any thread; does not block.
 * Return: "io_uring" or "epoll", valid as long as the process.
 */
const char *shmb_waitset_backend(struct shmb_waitset *waitset);

/* ---- embedded broker -------------------------------------------------------------------------- */

/**
 * struct shmb_broker_options - zeroes mean the default
 * @options_len: sizeof(struct shmb_broker_options)
 * @flags:	 0
 * @directory:	 holds control.sock, broker.pub and the state, NUL-terminated; made if it does not
 *		 exist (mode 0700); NULL: a new one below $XDG_RUNTIME_DIR or /tmp, removed at the end
 */
struct shmb_broker_options {
	uint32_t options_len;
	uint32_t flags;
	const char *directory;
};

/**
 * shmb_broker_start() - run a broker on a thread of this process
 * @options:	or NULL
 * @ret_broker: stores the broker
 *
 * The same core as shmbrokerd, for tests, process trees and containers. It serves this user only. It
 * starts no process, so that nobody keeps sealed segments when this one is killed: see shmbrokerd(8).
 *
 * Context: any thread; blocks until clients can connect.
 * Return: 0; -EADDRINUSE: a broker runs in that directory; -EACCES: the directory is not safe;
 *	   -ENOSPC, -ENOMEM, -EMFILE.
 */
int32_t shmb_broker_start(const struct shmb_broker_options *options,
			  struct shmb_broker **ret_broker);

/**
 * shmb_broker_address() - where an embedded broker listens
 * @broker: broker
 *
 * Context: any thread; does not block.
 * Return: path of its control socket, valid until shmb_broker_stop().
 */
const char *shmb_broker_address(struct shmb_broker *broker);

/**
 * shmb_broker_stop() - stop an embedded broker and remove everything it made
 * @broker: or NULL
 *
 * Context: any thread but its own; blocks until its thread has ended.
 * Return: 0.
 */
int32_t shmb_broker_stop(struct shmb_broker *broker);

#ifdef __cplusplus
}
#endif

#endif
