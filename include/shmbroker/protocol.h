/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_PROTOCOL_H
#define SHMBROKER_PROTOCOL_H

/*
 * The packets on the control socket (AF_UNIX, SOCK_SEQPACKET), protocol version 1. Data only, by
 * the rules of layout.h. A connection goes
 *
 *	client: HANDSHAKE_1	broker: HANDSHAKE_2	(Noise_IK_25519_ChaChaPoly_BLAKE2b)
 *	client: READY		from here on every packet is a sealed DATA packet
 *	client: JOIN		broker: JOINED
 *	client: requests	broker: replies, and events whenever membership changes
 *
 * DATA packet: struct shmb_packet_header, then the AEAD-sealed plaintext (header as associated
 * data): struct shmb_message_header, body, then one struct shmb_fd_descriptor per fd that rides
 * with the packet. Only the broker sends fds. Requests carry a request_id that the reply echoes;
 * events carry 0.
 */

#include <shmbroker/layout.h>

#define SHMB_PACKET_LEN_MAX 16384u
#define SHMB_PACKET_FDS_MAX 8u
#define SHMB_AEAD_TAG_LEN   16u
#define SHMB_KEY_LEN	    32u
#define SHMB_TOKEN_LEN	    32u
#define SHMB_LABEL_LEN_MAX  32u

#define SHMB_PACKET_HANDSHAKE_1 1u
#define SHMB_PACKET_HANDSHAKE_2 2u
#define SHMB_PACKET_DATA	3u
#define SHMB_PACKET_VERSION	4u /* broker: struct shmb_version_reject, in clear, a hint only */

#define SHMB_PACKET_REKEY_AFTER 1u /* flag: both sides rekey this direction after the record */

/**
 * struct shmb_packet_header - starts every packet
 * @kind:	 SHMB_PACKET_*
 * @wire:	 1
 * @fd_count:	 fds that ride with this packet; must be 0 from a client
 * @flags:	 SHMB_PACKET_REKEY_AFTER
 * @packet_len:	 of the whole packet; must equal what was received
 */
struct shmb_packet_header {
	uint8_t kind;
	uint8_t wire;
	uint8_t fd_count;
	uint8_t flags;
	uint32_t packet_len;
};
SHMB_SIZE(shmb_packet_header, 8);

#define SHMB_HANDSHAKE_MAGIC 0x314b4253u /* "SBK1" */

/* The first 32 bytes of HANDSHAKE_1 are part of the prologue, so they are authenticated. */
struct shmb_handshake_1 {
	struct shmb_packet_header header;
	uint32_t magic;
	uint16_t version_min;
	uint16_t version_max;
	uint8_t broker_key_id[8]; /* first 8 bytes of BLAKE2b-256 of the broker's public key */
	uint8_t zero[8];
	uint8_t noise[160]; /* e (32), s (48), payload (64 + 16) */
};
SHMB_AT(shmb_handshake_1, noise, 32);
SHMB_SIZE(shmb_handshake_1, 192);

/* Replayable and not forward secret: hints only. */
struct shmb_handshake_1_payload {
	uint32_t features;
	uint32_t library_version;
	uint64_t own_pidfd_inode; /* 0: unknown */
	uint32_t own_uid;
	uint32_t own_pid;
	uint8_t zero[8];
	uint8_t label[SHMB_LABEL_LEN_MAX]; /* for display, NUL padded */
};
SHMB_SIZE(shmb_handshake_1_payload, 64);

struct shmb_handshake_2 {
	struct shmb_packet_header header;
	uint8_t noise[176]; /* e (32), payload (128 + 16) */
};
SHMB_SIZE(shmb_handshake_2, 184);

#define SHMB_PEER_KEY_REGISTERED (1u << 0)
#define SHMB_PEER_PIDFD_INODE	 (1u << 1)
#define SHMB_PEER_RIGHTS_OFF	 (1u << 2)

struct shmb_handshake_2_payload {
	uint16_t version;
	uint16_t flags; /* SHMB_PEER_* */
	uint32_t packet_len_max;
	uint32_t rekey_records;
	uint32_t idle_ms; /* 0: none */
	uint32_t peer_uid; /* how the broker sees the client */
	uint32_t peer_gid;
	uint32_t peer_pid;
	uint32_t broker_uid;
	uint64_t peer_pidfd_inode; /* 0: unknown */
	uint64_t session_id;
	uint64_t instance;
	uint64_t broker_epoch;
	uint8_t boot_id[16];
	uint64_t monotonic_ns;
	uint8_t zero[40];
};
SHMB_AT(shmb_handshake_2_payload, peer_pidfd_inode, 32);
SHMB_AT(shmb_handshake_2_payload, boot_id, 64);
SHMB_SIZE(shmb_handshake_2_payload, 128);

struct shmb_version_reject {
	struct shmb_packet_header header;
	uint16_t version_min;
	uint16_t version_max;
	uint32_t zero;
};
SHMB_SIZE(shmb_version_reject, 16);

#define SHMB_NOISE_PROLOGUE "shmbroker-ctl-v1" /* 16 bytes, then HANDSHAKE_1[0..31] */

/* ---- messages -------------------------------------------------------------------------------- */

/* client to broker */
#define SHMB_MSG_READY	  1u /* struct shmb_msg_ready; no reply */
#define SHMB_MSG_JOIN	  2u /* struct shmb_msg_join -> JOINED + bell */
#define SHMB_MSG_OPEN	  3u /* struct shmb_msg_open, schema -> OPENED + channel */
#define SHMB_MSG_CLOSE	  4u /* struct shmb_msg_id (channel; the client: for good) -> OK */
#define SHMB_MSG_ATTACH	  5u /* struct shmb_msg_attach -> GRANT + lane or cursor, doorbell */
#define SHMB_MSG_ACTIVATE 6u /* struct shmb_msg_id (member, arena) -> OK; its segment is mapped */
#define SHMB_MSG_DETACH	  7u /* struct shmb_msg_id (member, arena) -> OK */
#define SHMB_MSG_RESUME	  8u /* struct shmb_msg_resume, u64 ids -> GRANT + doorbell */
#define SHMB_MSG_REPORT	  9u /* struct shmb_msg_report -> OK; a peer broke the layout */
#define SHMB_MSG_PING	  10u /* empty -> OK */
#define SHMB_MSG_CLAIM	  11u /* struct shmb_msg_claim -> CLAIMED */
#define SHMB_MSG_SOURCE	  12u /* struct shmb_msg_key -> OK; its first value is in the cell */
#define SHMB_MSG_DISCLAIM 13u /* struct shmb_msg_key -> OK */
#define SHMB_MSG_EXTEND	  14u /* struct shmb_msg_extend -> GRANT + arena */
#define SHMB_MSG_OVERTAKE 15u /* struct shmb_msg_report -> OK; it has evicted that subscriber */
#define SHMB_MSG_DRAINED  16u /* struct shmb_msg_report -> OK; it needs no more of what was kept */
#define SHMB_MSG_REMOVE	  17u /* struct shmb_msg_remove -> OK; it is not retained any more */
/* broker to client: replies */
#define SHMB_MSG_OK	 64u /* empty */
#define SHMB_MSG_ERROR	 65u /* struct shmb_msg_error, then the channel's schema if code 7 */
#define SHMB_MSG_JOINED	 66u /* struct shmb_msg_joined */
#define SHMB_MSG_OPENED	 67u /* struct shmb_msg_opened */
#define SHMB_MSG_GRANT	 68u /* struct shmb_msg_grant; as an event: the member moves */
#define SHMB_MSG_CLAIMED 69u /* struct shmb_msg_claimed */
/* broker to client: events, request_id 0 */
#define SHMB_MSG_PAIR	 96u /* struct shmb_msg_pair + peer's segment, bell, doorbell */
#define SHMB_MSG_UNPAIR	 97u /* struct shmb_msg_unpair */
#define SHMB_MSG_EVICTED 98u /* struct shmb_msg_id (member): the broker has thrown it out */
#define SHMB_MSG_ARENA	 99u /* struct shmb_msg_arena + arena of a publisher */

struct shmb_message_header {
	uint32_t type;
	uint32_t request_id;
	uint16_t fd_count;
	uint16_t zero;
	uint32_t body_len;
};
SHMB_SIZE(shmb_message_header, 16);

#define SHMB_FD_SHM	1u /* shared-memory object */
#define SHMB_FD_EVENTFD 2u
#define SHMB_FD_SOCKET	3u /* one end of a SOCK_STREAM socketpair */
#define SHMB_FD_PACKETS 4u /* one end of a SOCK_SEQPACKET socketpair */

#define SHMB_FD_READ	   1u
#define SHMB_FD_READ_WRITE 3u

#define SHMB_FD_ROLE_OWN      1u /* the segment that the receiver writes */
#define SHMB_FD_ROLE_PEER     2u /* the segment that the receiver reads */
#define SHMB_FD_ROLE_BELL     3u
#define SHMB_FD_ROLE_DOORBELL 4u /* an fd to wait on */
#define SHMB_FD_ROLE_RINGER   5u /* an fd to ring the peer with */
#define SHMB_FD_ROLE_FDS      6u /* a socket for the fds that records carry */

/**
 * struct shmb_fd_descriptor - what a riding fd must be; the client checks each before it uses it
 * @kind:	    SHMB_FD_*
 * @access:	    SHMB_FD_READ or SHMB_FD_READ_WRITE
 * @role:	    SHMB_FD_ROLE_*
 * @required_seals: F_SEAL_* bits that must be set
 * @st_dev:	    as fstat(2) gives them
 * @st_ino:	    as fstat(2) gives them
 * @segment_len:    st_size
 * @owner_uid:	    st_uid as the broker sees it
 * @mode:	    st_mode & 07777
 * @segment_id:	    as in the segment's header
 * @zero:	    reserved
 */
struct shmb_fd_descriptor {
	uint8_t kind;
	uint8_t access;
	uint16_t role;
	uint32_t required_seals;
	uint64_t st_dev;
	uint64_t st_ino;
	uint64_t segment_len;
	uint32_t owner_uid;
	uint32_t mode;
	uint64_t segment_id;
	uint8_t zero[16];
};
SHMB_SIZE(shmb_fd_descriptor, 64);

struct shmb_msg_ready {
	uint64_t session_id;
	uint8_t zero[24];
};
SHMB_SIZE(shmb_msg_ready, 32);

/* Generic: names one channel or member. */
struct shmb_msg_id {
	uint64_t id;
};
SHMB_SIZE(shmb_msg_id, 8);

/**
 * struct shmb_msg_join - become a client, or come back as one
 * @client_id: 0: a new client; else the id from an earlier JOINED of the same instance
 * @token:     that JOINED's token
 */
struct shmb_msg_join {
	uint64_t client_id;
	uint8_t token[SHMB_TOKEN_LEN];
};
SHMB_SIZE(shmb_msg_join, 40);

/**
 * struct shmb_msg_joined
 * @client_id: of this client; another one than asked for if the broker does not know it any more
 * @token:     keep it: it proves who comes back after a broker restart
 * fds: bell (role BELL, read)
 */
struct shmb_msg_joined {
	uint64_t client_id;
	uint64_t instance;
	uint64_t broker_epoch;
	uint8_t token[SHMB_TOKEN_LEN];
};
SHMB_SIZE(shmb_msg_joined, 56);

#define SHMB_OPEN_CREATE     (1u << 0) /* create it if it does not exist */
#define SHMB_OPEN_EXCLUSIVE  (1u << 1) /* refuse if it exists */
#define SHMB_OPEN_ANY_SCHEMA (1u << 2) /* take whatever schema the channel has */
#define SHMB_OPEN_ORDERED    (1u << 3) /* stream: one order for the records of all publishers */
#define SHMB_OPEN_RETAIN     (1u << 4) /* it stays, until REMOVE, although nobody uses it */

/**
 * struct shmb_msg_open - then @schema_len bytes of schema
 * The limits are used when the channel is created; 0 means the broker's default. @history is how many
 * records of each publisher a late subscriber gets, at most so many as fit into half a lane.
 */
struct shmb_msg_open {
	uint32_t flags; /* SHMB_OPEN_* */
	uint32_t pattern;
	uint32_t lane_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t schema_len;
	uint32_t name_len;
	uint32_t history;
	uint32_t backing; /* SHMB_MEMORY_* */
	uint32_t max_keys; /* state: lane_len is so many cells; else 0 */
	struct shmb_block_limits blocks; /* final, or all 0 */
	uint32_t ttl_ms; /* stream: records that are older are skipped; 0: none */
	uint32_t max_fds; /* stream: so many fds may a record carry, at most SHMB_FDS_MAX */
	uint8_t name[SHMB_NAME_LEN_MAX];
};
SHMB_SIZE(shmb_msg_open, 208);

/* fds: channel segment (role PEER, read). Opening a channel twice gives the same id. */
struct shmb_msg_opened {
	uint64_t channel_id;
	uint32_t created; /* 1: this call made it */
	uint32_t pattern;
	uint32_t lane_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t schema_len;
	uint32_t history;
	uint32_t max_keys;
	struct shmb_block_limits blocks;
	uint32_t ttl_ms;
	uint32_t ordered;
	uint32_t max_fds;
	uint32_t zero;
};
SHMB_SIZE(shmb_msg_opened, 88);

/* A retained channel goes with its last user, as any other, and what publishers have left goes now. */
struct shmb_msg_remove {
	uint32_t name_len;
	uint32_t zero;
	uint8_t name[SHMB_NAME_LEN_MAX];
};
SHMB_SIZE(shmb_msg_remove, 136);

#define SHMB_ROLE_PUBLISHER  1u
#define SHMB_ROLE_SUBSCRIBER 2u

struct shmb_msg_attach {
	uint64_t channel_id;
	uint32_t role; /* SHMB_ROLE_* */
	uint32_t flags; /* SHMB_MEMBER_LOSSY, _TRUSTING, _SERVER; a publisher's priority */
	uint32_t history; /* a subscriber wants at most so many records of the channel's history */
	uint32_t
		evict_after_ms; /* a subscriber holds its publishers up for no longer; 0: as it may */
};
SHMB_SIZE(shmb_msg_attach, 24);

/**
 * struct shmb_msg_attach_private - behind the ATTACH of a publisher: its lane is for one subscriber
 * @partner_id: that subscriber, of the same channel
 * @reply_to:	subscriber of the sender on that channel, at which it waits for answers
 *
 * Only, and always, on a call channel: one of the two is a server, the other is not.
 */
struct shmb_msg_attach_private {
	uint64_t partner_id;
	uint64_t reply_to;
};
SHMB_SIZE(shmb_msg_attach_private, 16);

/**
 * struct shmb_msg_grant - reply to ATTACH and RESUME, and an event
 * @doorbell_generation: grows each time the member gets a new doorbell
 * fds: ATTACH: own segment (role OWN, read-write), doorbell. RESUME: doorbell. Event: own segment.
 * The client allocates and maps its segment, then sends ACTIVATE.
 *
 * If RESUME or an event brings a segment to a member that has one, the member moves: it maps it and
 * sends ACTIVATE on the same connection. The broker sends PAIR for each peer, to each subscriber
 * before the publisher, an UNPAIR, reason MOVED, for each pair that these replace, and OK. Once it
 * has a PAIR for each of its pairs, a publisher copies all but the header of its old lane into the
 * new one, and goes on there where it was. A subscriber goes on when it has the OK or a PAIR.
 */
struct shmb_msg_grant {
	uint64_t member_id;
	uint64_t segment_len;
	uint32_t slot;
	uint32_t doorbell_generation;
};
SHMB_SIZE(shmb_msg_grant, 24);

/**
 * struct shmb_msg_extend - a publisher wants one more arena
 * @member_id:	 of the publisher
 * @segment_len: bytes, a multiple of SHMB_ARENA_PAGE_LEN
 * @number:	 higher than that of any arena it has had
 * @zero:	 reserved
 *
 * The GRANT has the arena's id as @member_id and its number as @slot. The client allocates and maps
 * it, then sends ACTIVATE with that id; once the broker answers OK the subscribers have it, or the
 * word that there is more to come. DETACH ends it. Refused with SHMB_CODE_BUSY while the lane is to
 * move. A lane that moves leaves its arenas to those who have them: they go with DETACH, once they are
 * empty and somebody has come who cannot have them.
 */
struct shmb_msg_extend {
	uint64_t member_id;
	uint64_t segment_len;
	uint32_t number;
	uint32_t zero;
};
SHMB_SIZE(shmb_msg_extend, 24);

/**
 * struct shmb_msg_arena - an arena of the publisher of a pair
 * @pair_id:	  of the pair, which the subscriber has been told of
 * @member_id:	  the receiver's
 * @publisher_id: whose it is; known by its number if told before, over another pair of the same two
 * @number:	  of the arena
 * @zero:	  reserved
 * fds: arena (PEER, read)
 */
struct shmb_msg_arena {
	uint64_t pair_id;
	uint64_t member_id;
	uint64_t publisher_id;
	uint32_t number;
	uint32_t zero;
};
SHMB_SIZE(shmb_msg_arena, 32);

/**
 * struct shmb_msg_resume - after a broker restart, then @n_pairs u64 pair ids that are known here,
 *			    then as many u64 member ids: the other member of each of these pairs
 * @segment: low 32 bits of the id of the segment that the member writes; 0: it has never moved
 * The broker sends PAIR anew for all that exist, and UNPAIR for each of these that is gone.
 */
struct shmb_msg_resume {
	uint64_t member_id;
	uint64_t channel_id;
	uint32_t n_pairs;
	uint32_t segment;
};
SHMB_SIZE(shmb_msg_resume, 24);

/**
 * struct shmb_msg_claim - a publisher of a state channel wants to be the one that writes a key
 * @member_id: of the publisher
 * @key_len:   bytes of @key, 1 to 64
 * @zero:      reserved
 * @key:       the rest is 0
 *
 * Refused with SHMB_CODE_BUSY, the owner's pid as @limit, while somebody else has it. Who has it
 * already gets the same answer again.
 */
struct shmb_msg_claim {
	uint64_t member_id;
	uint32_t key_len;
	uint32_t zero;
	uint8_t key[SHMB_STATE_KEY_LEN_MAX];
};
SHMB_SIZE(shmb_msg_claim, 80);

/**
 * struct shmb_msg_claimed
 * @term:    higher than that of any claim before
 * @version: of the last value; the next is higher
 * @index:   of the key in the directory, and of its cell
 * @zero:    reserved
 */
struct shmb_msg_claimed {
	uint64_t term;
	uint64_t version;
	uint32_t index;
	uint32_t zero;
};
SHMB_SIZE(shmb_msg_claimed, 24);

/* A key of a publisher. */
struct shmb_msg_key {
	uint64_t member_id;
	uint32_t index;
	uint32_t zero;
};
SHMB_SIZE(shmb_msg_key, 16);

#define SHMB_PAIR_LOSSY	  (1u << 0) /* the subscriber is lossy */
#define SHMB_PAIR_BLIND	  (1u << 1) /* to a publisher: the cursor comes with a later pair */
#define SHMB_PAIR_MOVE	  (1u << 2) /* to a publisher: it has to move before the subscriber can read */
#define SHMB_PAIR_PRIVATE (1u << 3) /* to a subscriber: a struct shmb_msg_pair_private follows */
#define SHMB_PAIR_GONE	  (1u << 4) /* to a subscriber: the publisher has gone, its lane is kept */

/**
 * struct shmb_msg_pair - a publisher and a subscriber of a channel now share memory
 * @pair_id:	 a second PAIR with a known id only brings another ringer; another id with known
 *		 members replaces the pair of these two: positions and sequences go on
 * @member_id:	 the receiver's member
 * @peer_id:	 the other member
 * @role:	 role of the receiver's member
 * @flags:	 SHMB_PAIR_*; to a subscriber also SHMB_MEMBER_PRIORITY_MASK as of the publisher
 * @slot:	 of the publisher: its slot in the cursor
 * @lane_len:	 bytes of the ring
 * @doorbell_generation: of the ringer that rides with this message: a publisher uses the newest
 *		 ringer that the cursor says its subscriber listens to, and stores which in the bell
 * @segment:	 low 32 bits of the id of the receiver's own segment that the pair is for, 0: the one it
 *		 writes. Another one if it is about to move, which the pair then proves to be done
 * @history:	 the subscriber begins so many records before the publisher's position, if they are
 *		 still there and the two have not met before
 * @evict_after_ms: the publisher stops waiting for the subscriber when that has not moved for so long
 *		 although its lane is full, and says so in the bell; 0: never
 * fds, to a publisher:	 cursor (PEER, read; not if BLIND), bell (BELL, read-write), RINGER
 * fds, to a subscriber: lane (PEER, read), bell (BELL, read; if GONE perhaps not), RINGER (rings
 *			 the publisher; not if GONE), and DOORBELL if this pair has a doorbell of its own (peers of
 *			 different uids)
 * To both, on a channel whose records may carry fds: a socket (FDS), unless they have one or the publisher
 * has gone. Both keep the ones that they have had from earlier brokers: the publisher uses the oldest
 * that works, the subscriber looks at all.
 *
 * Without a bell the subscriber begins, in a lane that is GONE, so many records before its end as
 * @history says.
 *
 * With GONE, which may come for a known pair, the subscriber reads the lane to its end and stores
 * nothing in the slot, which may be another publisher's. Then it sends DRAINED, and again if the same
 * PAIR comes again, until it has the UNPAIR: so long the broker keeps the lane.
 */
struct shmb_msg_pair {
	uint64_t pair_id;
	uint64_t member_id;
	uint64_t peer_id;
	uint32_t role;
	uint32_t flags;
	uint32_t slot;
	uint32_t lane_len;
	uint32_t doorbell_generation;
	uint32_t segment;
	uint32_t history;
	uint32_t evict_after_ms;
};
SHMB_SIZE(shmb_msg_pair, 56);

/**
 * struct shmb_msg_pair_private - behind the PAIR of a subscriber with a private lane
 * @reply_to: as in the publisher's ATTACH
 * @uid:      of the publisher's process
 * @pid:      of the publisher's process
 */
struct shmb_msg_pair_private {
	uint64_t reply_to;
	uint32_t uid;
	uint32_t pid;
};
SHMB_SIZE(shmb_msg_pair_private, 16);

#define SHMB_GONE_DETACHED 1u
#define SHMB_GONE_DIED	   2u
#define SHMB_GONE_EVICTED  3u
#define SHMB_GONE_PARTED   4u /* both live on, but not with each other */
#define SHMB_GONE_MOVED	   5u /* another pair of the same two takes its place */

/*
 * To a publisher of a queue, with @kept: the broker keeps what the worker has left, until the publisher
 * has given all of it to others and sends DRAINED. It may come more than once.
 */
struct shmb_msg_unpair {
	uint64_t pair_id;
	uint64_t member_id; /* the receiver's */
	uint32_t reason; /* SHMB_GONE_* */
	uint32_t kept; /* 1 or 0 */
};
SHMB_SIZE(shmb_msg_unpair, 24);

struct shmb_msg_report {
	uint64_t pair_id;
	uint64_t member_id; /* the sender's */
	uint32_t reason; /* which rule the peer broke; 0: none, it cannot be served; OVERTAKE: 0 */
	uint32_t zero;
};
SHMB_SIZE(shmb_msg_report, 24);

#define SHMB_CODE_DENIED_OR_UNKNOWN 1u /* absent and forbidden look the same */
#define SHMB_CODE_QUOTA		    2u
#define SHMB_CODE_BAD_REQUEST	    3u
#define SHMB_CODE_BUSY		    4u
#define SHMB_CODE_INTERNAL	    5u
#define SHMB_CODE_GONE		    6u
#define SHMB_CODE_SCHEMA	    7u /* the channel's schema follows the error */
#define SHMB_CODE_EXISTS	    8u
#define SHMB_CODE_NO_MEMORY	    9u /* no room in /dev/shm */
#define SHMB_CODE_NO_FDS	    10u
#define SHMB_CODE_PATTERN	    11u /* the channel exists with another pattern */
#define SHMB_CODE_HOLD		    12u /* policy: a subscriber holds nobody up for so long */
#define SHMB_CODE_PRIORITY	    13u /* policy: no publisher has so high a priority */
#define SHMB_CODE_FDS		    14u /* policy: no record carries so many fds */

/**
 * struct shmb_msg_error
 * @code:  SHMB_CODE_*
 * @limit: QUOTA: the limit that was reached; BUSY: the pid of the key's owner; HOLD: the longest
 *	   @evict_after_ms, 0: it may only be lossy; PRIORITY: the highest; FDS: so many; else 0
 * @asked: QUOTA: what was asked for; else 0
 */
struct shmb_msg_error {
	uint32_t code;
	uint32_t zero;
	uint64_t limit;
	uint64_t asked;
};
SHMB_SIZE(shmb_msg_error, 24);

#endif
