/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Noise_IK_25519_ChaChaPoly_BLAKE2b, then records. Nothing in a packet is believed before it is
 * authenticated; what is looked at earlier only decides whether the packet can be one at all.
 */

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <sodium.h>

#include "lib/error.h"
#include "lib/session.h"

#define WIRE_VERSION	 1
#define PROTOCOL_VERSION 1
#define PROLOGUE_LEN	 (sizeof(SHMB_NOISE_PROLOGUE) - 1 + offsetof(struct shmb_handshake_1, noise))
/* The sender changes its key so often; what was sealed before then stays secret for good. */
#define REKEY_RECORDS 65536u

static void prologue_make(uint8_t prologue[PROLOGUE_LEN], const struct shmb_handshake_1 *packet)
{
	size_t len = sizeof(SHMB_NOISE_PROLOGUE) - 1;

	memcpy(prologue, SHMB_NOISE_PROLOGUE, len);
	memcpy(prologue + len, packet, offsetof(struct shmb_handshake_1, noise));
}

static struct shmb_packet_header packet_header(uint8_t kind, size_t len)
{
	return (struct shmb_packet_header){
		.kind = kind,
		.wire = WIRE_VERSION,
		.packet_len = (uint32_t)len,
	};
}

/* Is this a packet of that kind, without fds and flags, of exactly that length? */
static bool packet_is(const void *packet, uint32_t packet_len, uint8_t kind, size_t len)
{
	struct shmb_packet_header wanted = packet_header(kind, len);

	return packet_len == len && memcmp(packet, &wanted, sizeof(wanted)) == 0;
}

static int session_split(struct shmb_session *session)
{
	int r = shmb_noise_split(&session->handshake, &session->send, &session->receive);

	session->ready = r == 0;
	return r;
}

int shmb_session_connect(struct shmb_session *session, const struct shmb_noise_keypair *own,
			 const uint8_t broker_key[SHMB_KEY_LEN],
			 const struct shmb_handshake_1_payload *payload,
			 struct shmb_handshake_1 *ret_packet)
{
	uint8_t prologue[PROLOGUE_LEN];
	uint8_t hash[32];
	int r;

	memset(session, 0, sizeof(*session));
	crypto_generichash(hash, sizeof(hash), broker_key, SHMB_KEY_LEN, NULL, 0);
	*ret_packet = (struct shmb_handshake_1){
		.header = packet_header(SHMB_PACKET_HANDSHAKE_1, sizeof(*ret_packet)),
		.magic = SHMB_HANDSHAKE_MAGIC,
		.version_min = PROTOCOL_VERSION,
		.version_max = PROTOCOL_VERSION,
	};
	memcpy(ret_packet->broker_key_id, hash, sizeof(ret_packet->broker_key_id));
	prologue_make(prologue, ret_packet);
	r = shmb_noise_initiator_init(&session->handshake, prologue, sizeof(prologue), own,
				      broker_key);
	if (r == 0)
		r = shmb_noise_write_1(&session->handshake, payload, sizeof(*payload),
				       ret_packet->noise, sizeof(ret_packet->noise));
	if (r < 0)
		return shmb_fail(r == -EBADMSG ? -EKEYREJECTED : r, "the broker's key is no key");
	return 0;
}

int shmb_session_connected(struct shmb_session *session, const void *packet, uint32_t packet_len,
			   struct shmb_handshake_2_payload *ret_payload)
{
	const size_t offset = offsetof(struct shmb_handshake_2, noise);
	int r;

	if (packet_is(packet, packet_len, SHMB_PACKET_VERSION, sizeof(struct shmb_version_reject)))
		return shmb_fail(-EPROTONOSUPPORT, "the broker speaks another protocol version");
	if (!packet_is(packet, packet_len, SHMB_PACKET_HANDSHAKE_2,
		       sizeof(struct shmb_handshake_2)))
		return shmb_fail(-EKEYREJECTED, "what answered is not a broker");
	r = shmb_noise_read_2(&session->handshake, (const uint8_t *)packet + offset,
			      packet_len - offset, ret_payload, sizeof(*ret_payload));
	if (r < 0)
		return shmb_fail(-EKEYREJECTED, "the broker does not hold the expected key");
	if (ret_payload->version != PROTOCOL_VERSION ||
	    !sodium_is_zero(ret_payload->zero, sizeof(ret_payload->zero)))
		return shmb_fail(-EPROTONOSUPPORT, "the broker chose protocol version %u",
				 ret_payload->version);
	return session_split(session);
}

int shmb_session_accept(struct shmb_session *session, const struct shmb_noise_keypair *own,
			const void *packet, uint32_t packet_len,
			struct shmb_handshake_1_payload *ret_payload,
			uint8_t ret_client_key[SHMB_KEY_LEN])
{
	uint8_t prologue[PROLOGUE_LEN];
	struct shmb_handshake_1 in;
	int r;

	memset(session, 0, sizeof(*session));
	if (!packet_is(packet, packet_len, SHMB_PACKET_HANDSHAKE_1, sizeof(in)))
		return shmb_fail(-EKEYREJECTED, "not a handshake");
	memcpy(&in, packet, sizeof(in));
	if (in.magic != SHMB_HANDSHAKE_MAGIC || !sodium_is_zero(in.zero, sizeof(in.zero)) ||
	    in.version_min > in.version_max)
		return shmb_fail(-EKEYREJECTED, "not a handshake");
	if (in.version_min > PROTOCOL_VERSION || in.version_max < PROTOCOL_VERSION)
		return shmb_fail(-EPROTONOSUPPORT, "the client speaks versions %u to %u",
				 in.version_min, in.version_max);
	prologue_make(prologue, &in);
	r = shmb_noise_responder_init(&session->handshake, prologue, sizeof(prologue), own);
	if (r < 0)
		return r;
	r = shmb_noise_read_1(&session->handshake, in.noise, sizeof(in.noise), ret_payload,
			      sizeof(*ret_payload));
	if (r < 0 || !sodium_is_zero(ret_payload->zero, sizeof(ret_payload->zero)))
		return shmb_fail(-EKEYREJECTED, "the client does not know this broker's key");
	memcpy(ret_client_key, shmb_noise_remote_static(&session->handshake), SHMB_KEY_LEN);
	return 0;
}

int shmb_session_accepted(struct shmb_session *session,
			  const struct shmb_handshake_2_payload *payload,
			  struct shmb_handshake_2 *ret_packet)
{
	struct shmb_handshake_2_payload plain = *payload;
	int r;

	plain.version = PROTOCOL_VERSION;
	plain.packet_len_max = SHMB_PACKET_LEN_MAX;
	plain.rekey_records = REKEY_RECORDS;
	ret_packet->header = packet_header(SHMB_PACKET_HANDSHAKE_2, sizeof(*ret_packet));
	r = shmb_noise_write_2(&session->handshake, &plain, sizeof(plain), ret_packet->noise,
			       sizeof(ret_packet->noise));
	if (r < 0)
		return r;
	return session_split(session);
}

int shmb_session_seal(struct shmb_session *session, const struct shmb_message *message,
		      uint8_t *packet)
{
	size_t fds_len = message->fd_count * sizeof(struct shmb_fd_descriptor);
	struct shmb_packet_header header;
	struct shmb_message_header inner;
	uint8_t *plain = packet + sizeof(header);
	size_t len;
	int r;

	if (!session->ready)
		return -EOVERFLOW;
	/* The bound on body_len comes first: the sum below cannot wrap then. */
	if (message->fd_count > SHMB_PACKET_FDS_MAX || message->body_len > SHMB_PACKET_LEN_MAX)
		return -EMSGSIZE;
	len = sizeof(inner) + message->body_len + fds_len;
	if (sizeof(header) + len + SHMB_AEAD_TAG_LEN > SHMB_PACKET_LEN_MAX)
		return -EMSGSIZE;
	header = packet_header(SHMB_PACKET_DATA, sizeof(header) + len + SHMB_AEAD_TAG_LEN);
	header.fd_count = (uint8_t)message->fd_count;
	if ((session->send.nonce + 1) % REKEY_RECORDS == 0)
		header.flags = SHMB_PACKET_REKEY_AFTER;
	inner = (struct shmb_message_header){
		.type = message->type,
		.request_id = message->request_id,
		.fd_count = (uint16_t)message->fd_count,
		.body_len = message->body_len,
	};
	memcpy(packet, &header, sizeof(header));
	memcpy(plain, &inner, sizeof(inner));
	if (message->body_len)
		memcpy(plain + sizeof(inner), message->body, message->body_len);
	if (fds_len)
		memcpy(plain + sizeof(inner) + message->body_len, message->descriptors, fds_len);
	r = shmb_noise_seal(&session->send, &header, sizeof(header), plain, len, plain);
	if (r < 0)
		return r;
	if (header.flags & SHMB_PACKET_REKEY_AFTER)
		r = shmb_noise_rekey(&session->send);
	return r < 0 ? r : (int)header.packet_len;
}

/* The plaintext is authentic, so a mistake in it is the peer's own. */
static int message_parse(const uint8_t *plain, size_t len, uint8_t fd_count,
			 struct shmb_message *ret_message)
{
	struct shmb_message_header inner;
	size_t fds_len = fd_count * sizeof(struct shmb_fd_descriptor);

	if (len < sizeof(inner) + fds_len)
		return shmb_fail(-EPROTO, "message of %zu bytes", len);
	memcpy(&inner, plain, sizeof(inner));
	if (inner.zero != 0 || inner.fd_count != fd_count ||
	    inner.body_len != len - sizeof(inner) - fds_len)
		return shmb_fail(-EPROTO, "message %u whose lengths do not add up", inner.type);
	/* The descriptors follow the body and are read in place. */
	if (fd_count && inner.body_len % 8 != 0)
		return shmb_fail(-EPROTO, "message %u with unaligned descriptors", inner.type);
	*ret_message = (struct shmb_message){
		.type = inner.type,
		.request_id = inner.request_id,
		.body = plain + sizeof(inner),
		.body_len = inner.body_len,
		.fd_count = fd_count,
	};
	if (fd_count)
		ret_message->descriptors = (const void *)(plain + sizeof(inner) + inner.body_len);
	for (uint8_t i = 0; i < fd_count; i++)
		if (!sodium_is_zero(ret_message->descriptors[i].zero,
				    sizeof(ret_message->descriptors[i].zero)))
			return shmb_fail(-EPROTO, "message %u with an unknown descriptor",
					 inner.type);
	return 0;
}

int shmb_session_open(struct shmb_session *session, const uint8_t *packet, uint32_t packet_len,
		      uint8_t *plain, struct shmb_message *ret_message)
{
	struct shmb_packet_header header;
	int r;

	if (!session->ready || packet_len < sizeof(header) + SHMB_AEAD_TAG_LEN ||
	    packet_len > SHMB_PACKET_LEN_MAX)
		return shmb_fail(-EBADMSG, "packet of %u bytes", packet_len);
	memcpy(&header, packet, sizeof(header));
	if (header.kind != SHMB_PACKET_DATA || header.wire != WIRE_VERSION ||
	    header.packet_len != packet_len || header.fd_count > SHMB_PACKET_FDS_MAX ||
	    (header.flags & ~SHMB_PACKET_REKEY_AFTER))
		return shmb_fail(-EBADMSG, "not a data packet");
	r = shmb_noise_open(&session->receive, &header, sizeof(header), packet + sizeof(header),
			    packet_len - sizeof(header), plain);
	if (r < 0)
		return shmb_fail(-EBADMSG, "the packet is not authentic");
	if ((header.flags & SHMB_PACKET_REKEY_AFTER) && shmb_noise_rekey(&session->receive) < 0)
		return shmb_fail(-EBADMSG, "the key is used up");
	return message_parse(plain, (size_t)r, header.fd_count, ret_message);
}

void shmb_session_deinit(struct shmb_session *session)
{
	shmb_noise_handshake_deinit(&session->handshake);
	shmb_noise_cipher_deinit(&session->send);
	shmb_noise_cipher_deinit(&session->receive);
	session->ready = false;
}
