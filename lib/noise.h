/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_NOISE_H
#define SHMB_LIB_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHMB_NOISE_KEY_LEN  32 /* X25519 secrets and publics, ChaCha20 keys */
#define SHMB_NOISE_TAG_LEN  16
#define SHMB_NOISE_HASH_LEN 64

/* The longest message the Noise specification allows, tag included. */
#define SHMB_NOISE_MESSAGE_MAX 65535

/* What the two handshake messages add to their payloads: e, sealed s, tag; e, tag. */
#define SHMB_NOISE_OVERHEAD_1 (2 * SHMB_NOISE_KEY_LEN + 2 * SHMB_NOISE_TAG_LEN)
#define SHMB_NOISE_OVERHEAD_2 (SHMB_NOISE_KEY_LEN + SHMB_NOISE_TAG_LEN)

/* One key seals this many records and not one more. */
#define SHMB_NOISE_RECORDS_PER_KEY (UINT64_C(1) << 32)

struct shmb_noise_keypair {
	uint8_t secret[SHMB_NOISE_KEY_LEN];
	uint8_t public[SHMB_NOISE_KEY_LEN];
};

/**
 * struct shmb_noise_cipher - one direction of an established session
 * @key:   ChaCha20-Poly1305 key
 * @nonce: number of the next record; never sent, never reset by a rekey
 * @left:  records @key may still seal or open; 0 in a zeroed cipher, which so refuses all work
 */
struct shmb_noise_cipher {
	uint8_t key[SHMB_NOISE_KEY_LEN];
	uint64_t nonce;
	uint64_t left;
};

/**
 * struct shmb_noise_handshake - one side of a handshake in progress
 *
 * Private to noise.c, declared for embedding. A zeroed one is a valid argument everywhere: every
 * step is refused, and there is nothing to wipe. It holds secrets and must end in
 * shmb_noise_handshake_deinit().
 */
struct shmb_noise_handshake {
	struct shmb_noise_cipher cipher;
	uint8_t chaining_key[SHMB_NOISE_HASH_LEN];
	uint8_t hash[SHMB_NOISE_HASH_LEN];
	struct shmb_noise_keypair local;
	struct shmb_noise_keypair ephemeral;
	uint8_t remote_static[SHMB_NOISE_KEY_LEN];
	uint8_t remote_ephemeral[SHMB_NOISE_KEY_LEN];
	uint8_t stage;
	bool initiator;
	bool has_ephemeral;
};

/**
 * shmb_noise_keypair_generate() - make a fresh X25519 key pair
 * @pair: filled in; the caller wipes it when done
 *
 * Context: Any thread. Aborts if the kernel has no randomness to give.
 * Return: 0, or -EIO if libsodium cannot start.
 */
int shmb_noise_keypair_generate(struct shmb_noise_keypair *pair);

/**
 * shmb_noise_public_from_secret() - derive the public half of a key
 * @public: 32 bytes, filled in
 * @secret: any 32 bytes; X25519 ignores the five bits it must
 *
 * Context: Any thread.
 * Return: 0, or -EIO if libsodium cannot start.
 */
int shmb_noise_public_from_secret(uint8_t public[SHMB_NOISE_KEY_LEN],
				  const uint8_t secret[SHMB_NOISE_KEY_LEN]);

/**
 * shmb_noise_initiator_init() - begin a handshake with a peer whose public key is known
 * @hs:            overwritten
 * @prologue:      what both sides must agree on before the first message
 * @prologue_len:  length of @prologue
 * @local:         our static pair; copied
 * @remote_static: the key the peer must prove to hold; copied
 *
 * Context: One thread per handshake, here and below.
 * Return: 0, or -EIO if libsodium cannot start.
 */
int shmb_noise_initiator_init(struct shmb_noise_handshake *hs, const void *prologue,
			      size_t prologue_len, const struct shmb_noise_keypair *local,
			      const uint8_t remote_static[SHMB_NOISE_KEY_LEN]);

/**
 * shmb_noise_responder_init() - await a handshake
 * @hs:           overwritten
 * @prologue:     what both sides must agree on before the first message
 * @prologue_len: length of @prologue
 * @local:        our static pair; copied
 *
 * Return: 0, or -EIO if libsodium cannot start.
 */
int shmb_noise_responder_init(struct shmb_noise_handshake *hs, const void *prologue,
			      size_t prologue_len, const struct shmb_noise_keypair *local);

/**
 * shmb_noise_handshake_deinit() - wipe a handshake, in whatever stage it is
 * @hs: all zero afterwards
 */
void shmb_noise_handshake_deinit(struct shmb_noise_handshake *hs);

/**
 * shmb_noise_set_ephemeral() - fix the ephemeral key, which is otherwise random
 * @hs:     a handshake that has not yet sent its message
 * @secret: the ephemeral secret
 *
 * For test vectors only: an ephemeral used twice gives up forward secrecy.
 *
 * Return: 0, -EINVAL if our message is already out, -EIO if libsodium cannot start.
 */
int shmb_noise_set_ephemeral(struct shmb_noise_handshake *hs,
			     const uint8_t secret[SHMB_NOISE_KEY_LEN]);

/**
 * shmb_noise_write_1() - the initiator's message: e, es, s, ss, payload
 * @hs:      a fresh initiator
 * @payload: sealed to the responder's static key. Anyone may replay it, and whoever learns that
 *           key later can read it: hints only, nothing to act upon.
 * @len:     length of @payload
 * @out:     @len + SHMB_NOISE_OVERHEAD_1 bytes; may not overlap @payload
 * @out_cap: room at @out
 *
 * Return: bytes written; -EINVAL, with @hs unchanged, if this is not the step due, @out_cap is too
 * small or the message would exceed SHMB_NOISE_MESSAGE_MAX; -EBADMSG, with @hs wiped, if the remote
 * static key is a point of low order; -EIO, with @hs wiped, if libsodium cannot start.
 */
int shmb_noise_write_1(struct shmb_noise_handshake *hs, const void *payload, size_t len, void *out,
		       size_t out_cap);

/**
 * shmb_noise_read_1() - the responder takes the initiator's message
 * @hs:      a fresh responder
 * @in:      the message, from a stranger
 * @len:     its length
 * @payload: receives @len - SHMB_NOISE_OVERHEAD_1 bytes; may not overlap @in
 * @cap:     room at @payload
 *
 * Success says who made the message, not that its maker is there now: it may be a replay. Only the
 * first transport record proves that.
 *
 * Return: bytes of payload; -EINVAL, with @hs unchanged, if this is not the step due; -EBADMSG,
 * with @hs wiped, for any message that is not acceptable, be it truncated, longer than @cap allows,
 * forged, meant for another key or prologue, or carrying a point of low order.
 */
int shmb_noise_read_1(struct shmb_noise_handshake *hs, const void *in, size_t len, void *payload,
		      size_t cap);

/**
 * shmb_noise_write_2() - the responder's answer: e, ee, se, payload
 * @hs:      a responder that has taken message 1
 * @payload: sealed to the initiator
 * @len:     length of @payload
 * @out:     @len + SHMB_NOISE_OVERHEAD_2 bytes; may not overlap @payload
 * @out_cap: room at @out
 *
 * Return: bytes written, or an error as from shmb_noise_write_1().
 */
int shmb_noise_write_2(struct shmb_noise_handshake *hs, const void *payload, size_t len, void *out,
		       size_t out_cap);

/**
 * shmb_noise_read_2() - the initiator takes the answer, which proves the responder's identity
 * @hs:      an initiator that has sent message 1
 * @in:      the message
 * @len:     its length
 * @payload: receives @len - SHMB_NOISE_OVERHEAD_2 bytes; may not overlap @in
 * @cap:     room at @payload
 *
 * Return: bytes of payload, or an error as from shmb_noise_read_1().
 */
int shmb_noise_read_2(struct shmb_noise_handshake *hs, const void *in, size_t len, void *payload,
		      size_t cap);

/**
 * shmb_noise_remote_static() - the peer's public key
 * @hs: a handshake
 *
 * Return: 32 bytes that live as long as @hs is neither wiped nor reused; NULL in a responder that
 * has not taken message 1, and in a wiped handshake.
 */
const uint8_t *shmb_noise_remote_static(const struct shmb_noise_handshake *hs);

/**
 * shmb_noise_handshake_hash() - the hash that names the session, equal on both sides
 * @hs: a handshake
 *
 * Not secret. Remains after shmb_noise_split().
 *
 * Return: 64 bytes that live as long as @hs is neither wiped nor reused; NULL until both messages
 * are done.
 */
const uint8_t *shmb_noise_handshake_hash(const struct shmb_noise_handshake *hs);

/**
 * shmb_noise_split() - take the two transport keys out of a finished handshake
 * @hs:      both messages done; every secret in it is wiped
 * @send:    filled in: what we seal with
 * @receive: filled in: what we open with
 *
 * Return: 0, or -EINVAL if the handshake is not finished or was split before.
 */
int shmb_noise_split(struct shmb_noise_handshake *hs, struct shmb_noise_cipher *send,
		     struct shmb_noise_cipher *receive);

/**
 * shmb_noise_seal() - encrypt and authenticate the next record
 * @cipher: the sending direction
 * @ad:     data to authenticate but not to carry, or NULL if @ad_len is 0
 * @ad_len: length of @ad
 * @plain:  the record
 * @len:    its length
 * @out:    @len + SHMB_NOISE_TAG_LEN bytes; either @plain itself or disjoint from it
 *
 * Context: One thread per cipher, here and below.
 * Return: bytes written; -EINVAL if the result would exceed SHMB_NOISE_MESSAGE_MAX; -EOVERFLOW if
 * the key is used up or @cipher was never set. No error changes @cipher.
 */
int shmb_noise_seal(struct shmb_noise_cipher *cipher, const void *ad, size_t ad_len,
		    const void *plain, size_t len, void *out);

/**
 * shmb_noise_open() - verify and decrypt the next record
 * @cipher: the receiving direction
 * @ad:     data that came in the clear, or NULL if @ad_len is 0
 * @ad_len: length of @ad
 * @in:     the sealed record
 * @len:    its length
 * @plain:  @len - SHMB_NOISE_TAG_LEN bytes; either @in itself or disjoint from it
 *
 * Records open in the order in which they were sealed, each once: a replay, a gap and a forgery are
 * the same error. The channel neither loses nor reorders, so the caller should close it then.
 *
 * Return: bytes of plaintext; -EBADMSG if this is not the next record, with @plain zeroed if @len
 * was at all possible; -EOVERFLOW if the key is used up or @cipher was never set. No error changes
 * @cipher.
 */
int shmb_noise_open(struct shmb_noise_cipher *cipher, const void *ad, size_t ad_len, const void *in,
		    size_t len, void *plain);

/**
 * shmb_noise_rekey() - replace the key by a one-way function of itself
 * @cipher: one direction; the peer must do the same after the same record
 *
 * What was sealed before stays sealed even if the new key leaks. Must come before the key is used
 * up: a channel that got that far is to be closed.
 *
 * Return: 0, or -EOVERFLOW if the key is used up or @cipher was never set.
 */
int shmb_noise_rekey(struct shmb_noise_cipher *cipher);

/**
 * shmb_noise_cipher_deinit() - wipe one direction
 * @cipher: refuses all work afterwards
 */
void shmb_noise_cipher_deinit(struct shmb_noise_cipher *cipher);

#endif
