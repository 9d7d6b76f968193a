/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Noise_IK_25519_ChaChaPoly_BLAKE2b after "The Noise Protocol Framework", revision 34
 * (https://noiseprotocol.org/noise.html), from the primitives of libsodium and with nothing added,
 * so that any other Noise implementation can take either side.
 *
 * The module does no I/O and allocates nothing. It promises that a handshake which fails for any
 * reason but a wrong call leaves no secret behind and can go no further; that no nonce is used
 * twice under a key; that a record opens once, in its place, or not at all; and that a zeroed
 * structure refuses all work.
 *
 * The names of the Noise functions (section 5 of the specification) stand above ours.
 */

#include "lib/noise.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define PROTOCOL_NAME "Noise_IK_25519_ChaChaPoly_BLAKE2b"

/* BLAKE2b's block: what HMAC pads its key to. */
#define BLOCK_LEN 128

/* Where things lie in message 1; message 2 is e and the payload. */
#define OFFSET_STATIC	 SHMB_NOISE_KEY_LEN
#define OFFSET_PAYLOAD_1 (OFFSET_STATIC + SHMB_NOISE_KEY_LEN + SHMB_NOISE_TAG_LEN)
#define OFFSET_PAYLOAD_2 SHMB_NOISE_KEY_LEN

/* Noise sets this nonce aside for REKEY. */
#define NONCE_REKEY UINT64_MAX

/* What is due next. Zero is the dead end, so that wiping is the same as giving up. */
enum stage {
	STAGE_DEAD,
	STAGE_WRITE_1,
	STAGE_READ_1,
	STAGE_WRITE_2,
	STAGE_READ_2,
	STAGE_SPLIT,
	STAGE_DONE,
};

_Static_assert(sizeof(PROTOCOL_NAME) - 1 <= SHMB_NOISE_HASH_LEN, "a longer name would be hashed");
_Static_assert(SHMB_NOISE_KEY_LEN == crypto_scalarmult_BYTES, "X25519");
_Static_assert(SHMB_NOISE_KEY_LEN == crypto_aead_chacha20poly1305_ietf_KEYBYTES, "ChaCha20");
_Static_assert(SHMB_NOISE_TAG_LEN == crypto_aead_chacha20poly1305_ietf_ABYTES, "Poly1305");
_Static_assert(SHMB_NOISE_HASH_LEN == crypto_generichash_BYTES_MAX, "BLAKE2b");

/* sodium_init() selects the fast code paths; it may be called at any time, by any thread. */
static int start_sodium(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

/*
 * Keys
 */

int shmb_noise_public_from_secret(uint8_t public[SHMB_NOISE_KEY_LEN],
				  const uint8_t secret[SHMB_NOISE_KEY_LEN])
{
	int r = start_sodium();

	if (r)
		return r;
	return crypto_scalarmult_base(public, secret) ? -EIO : 0;
}

int shmb_noise_keypair_generate(struct shmb_noise_keypair *pair)
{
	int r = start_sodium();

	if (r)
		return r;
	randombytes_buf(pair->secret, sizeof(pair->secret));
	return shmb_noise_public_from_secret(pair->public, pair->secret);
}

/*
 * Hash functions
 */

static void hash2(uint8_t out[SHMB_NOISE_HASH_LEN], const void *a, size_t a_len, const void *b,
		  size_t b_len)
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, SHMB_NOISE_HASH_LEN);
	crypto_generichash_update(&state, a, a_len);
	crypto_generichash_update(&state, b, b_len);
	crypto_generichash_final(&state, out, SHMB_NOISE_HASH_LEN);
	/* HMAC puts keys through here. */
	sodium_memzero(&state, sizeof(state));
}

/* HMAC-HASH. Every key is as long as the hash: a chaining key, or what HMAC made of one. */
static void hmac(uint8_t out[SHMB_NOISE_HASH_LEN], const uint8_t key[SHMB_NOISE_HASH_LEN],
		 const void *data, size_t len)
{
	uint8_t inner_pad[BLOCK_LEN], outer_pad[BLOCK_LEN], inner[SHMB_NOISE_HASH_LEN];

	memset(inner_pad, 0x36, sizeof(inner_pad));
	memset(outer_pad, 0x5c, sizeof(outer_pad));
	for (size_t i = 0; i < SHMB_NOISE_HASH_LEN; i++) {
		inner_pad[i] ^= key[i];
		outer_pad[i] ^= key[i];
	}
	hash2(inner, inner_pad, sizeof(inner_pad), data, len);
	hash2(out, outer_pad, sizeof(outer_pad), inner, sizeof(inner));
	sodium_memzero(inner_pad, sizeof(inner_pad));
	sodium_memzero(outer_pad, sizeof(outer_pad));
	sodium_memzero(inner, sizeof(inner));
}

/* HKDF with two outputs. @out_1 may be @chaining_key. */
static void hkdf2(uint8_t out_1[SHMB_NOISE_HASH_LEN], uint8_t out_2[SHMB_NOISE_HASH_LEN],
		  const uint8_t chaining_key[SHMB_NOISE_HASH_LEN], const void *material, size_t len)
{
	uint8_t temp_key[SHMB_NOISE_HASH_LEN], data[SHMB_NOISE_HASH_LEN + 1];

	hmac(temp_key, chaining_key, material, len);
	data[0] = 1;
	hmac(out_1, temp_key, data, 1);
	memcpy(data, out_1, SHMB_NOISE_HASH_LEN);
	data[SHMB_NOISE_HASH_LEN] = 2;
	hmac(out_2, temp_key, data, sizeof(data));
	sodium_memzero(temp_key, sizeof(temp_key));
	sodium_memzero(data, sizeof(data));
}

/*
 * CipherState
 */

static void cipher_allow(struct shmb_noise_cipher *cipher)
{
	cipher->left = SHMB_NOISE_RECORDS_PER_KEY;
	if (cipher->left > NONCE_REKEY - cipher->nonce)
		cipher->left = NONCE_REKEY - cipher->nonce;
}

/* InitializeKey */
static void cipher_init(struct shmb_noise_cipher *cipher, const uint8_t key[SHMB_NOISE_KEY_LEN])
{
	memcpy(cipher->key, key, SHMB_NOISE_KEY_LEN);
	cipher->nonce = 0;
	cipher_allow(cipher);
}

static void cipher_count(struct shmb_noise_cipher *cipher)
{
	cipher->nonce++;
	cipher->left--;
}

/* Four zero bytes, then the counter, little-endian. */
static void put_nonce(uint8_t out[crypto_aead_chacha20poly1305_ietf_NPUBBYTES], uint64_t nonce)
{
	memset(out, 0, 4);
	for (int i = 0; i < 8; i++)
		out[4 + i] = (uint8_t)(nonce >> (8 * i));
}

/* EncryptWithAd */
int shmb_noise_seal(struct shmb_noise_cipher *cipher, const void *ad, size_t ad_len,
		    const void *plain, size_t len, void *out)
{
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

	if (len > SHMB_NOISE_MESSAGE_MAX - SHMB_NOISE_TAG_LEN)
		return -EINVAL;
	if (!cipher->left)
		return -EOVERFLOW;
	put_nonce(nonce, cipher->nonce);
	crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, len, ad, ad_len, NULL, nonce,
						  cipher->key);
	cipher_count(cipher);
	return (int)len + SHMB_NOISE_TAG_LEN;
}

/* DecryptWithAd */
int shmb_noise_open(struct shmb_noise_cipher *cipher, const void *ad, size_t ad_len, const void *in,
		    size_t len, void *plain)
{
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

	if (len < SHMB_NOISE_TAG_LEN || len > SHMB_NOISE_MESSAGE_MAX)
		return -EBADMSG;
	if (!cipher->left)
		return -EOVERFLOW;
	put_nonce(nonce, cipher->nonce);
	if (crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, in, len, ad, ad_len, nonce,
						      cipher->key))
		return -EBADMSG;
	cipher_count(cipher);
	return (int)len - SHMB_NOISE_TAG_LEN;
}

/* Rekey. The nonce goes on counting, as the specification has it. */
int shmb_noise_rekey(struct shmb_noise_cipher *cipher)
{
	static const uint8_t zeros[SHMB_NOISE_KEY_LEN];
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
	uint8_t sealed[SHMB_NOISE_KEY_LEN + SHMB_NOISE_TAG_LEN];

	if (!cipher->left)
		return -EOVERFLOW;
	put_nonce(nonce, NONCE_REKEY);
	crypto_aead_chacha20poly1305_ietf_encrypt(sealed, NULL, zeros, sizeof(zeros), NULL, 0, NULL,
						  nonce, cipher->key);
	memcpy(cipher->key, sealed, SHMB_NOISE_KEY_LEN);
	sodium_memzero(sealed, sizeof(sealed));
	cipher_allow(cipher);
	return 0;
}

void shmb_noise_cipher_deinit(struct shmb_noise_cipher *cipher)
{
	sodium_memzero(cipher, sizeof(*cipher));
}

/*
 * SymmetricState
 */

/* MixHash */
static void mix_hash(struct shmb_noise_handshake *hs, const void *data, size_t len)
{
	hash2(hs->hash, hs->hash, sizeof(hs->hash), data, len);
}

/* MixKey(DH()): no key may come from a point that makes every secret the same. */
static int mix_dh(struct shmb_noise_handshake *hs, const uint8_t secret[SHMB_NOISE_KEY_LEN],
		  const uint8_t public[SHMB_NOISE_KEY_LEN])
{
	uint8_t shared[SHMB_NOISE_KEY_LEN], key[SHMB_NOISE_HASH_LEN];

	/* Fails if the result is all zero. */
	if (crypto_scalarmult(shared, secret, public)) {
		sodium_memzero(shared, sizeof(shared));
		return -EBADMSG;
	}
	hkdf2(hs->chaining_key, key, hs->chaining_key, shared, sizeof(shared));
	cipher_init(&hs->cipher, key);
	sodium_memzero(shared, sizeof(shared));
	sodium_memzero(key, sizeof(key));
	return 0;
}

/* EncryptAndHash */
static int seal_and_hash(struct shmb_noise_handshake *hs, const void *plain, size_t len, void *out)
{
	int r = shmb_noise_seal(&hs->cipher, hs->hash, sizeof(hs->hash), plain, len, out);

	if (r >= 0)
		mix_hash(hs, out, (size_t)r);
	return r;
}

/* DecryptAndHash */
static int open_and_hash(struct shmb_noise_handshake *hs, const void *in, size_t len, void *plain)
{
	int r = shmb_noise_open(&hs->cipher, hs->hash, sizeof(hs->hash), in, len, plain);

	if (r >= 0)
		mix_hash(hs, in, len);
	return r;
}

/*
 * HandshakeState
 */

/* Initialize. The responder's static key is IK's only pre-message. */
static int handshake_init(struct shmb_noise_handshake *hs, const void *prologue,
			  size_t prologue_len, const struct shmb_noise_keypair *local,
			  const uint8_t responder_static[SHMB_NOISE_KEY_LEN])
{
	int r;

	memset(hs, 0, sizeof(*hs));
	r = start_sodium();
	if (r)
		return r;
	memcpy(hs->hash, PROTOCOL_NAME, sizeof(PROTOCOL_NAME) - 1);
	memcpy(hs->chaining_key, hs->hash, sizeof(hs->chaining_key));
	hs->local = *local;
	mix_hash(hs, prologue, prologue_len);
	mix_hash(hs, responder_static, SHMB_NOISE_KEY_LEN);
	return 0;
}

int shmb_noise_initiator_init(struct shmb_noise_handshake *hs, const void *prologue,
			      size_t prologue_len, const struct shmb_noise_keypair *local,
			      const uint8_t remote_static[SHMB_NOISE_KEY_LEN])
{
	int r = handshake_init(hs, prologue, prologue_len, local, remote_static);

	if (r)
		return r;
	memcpy(hs->remote_static, remote_static, sizeof(hs->remote_static));
	hs->initiator = true;
	hs->stage = STAGE_WRITE_1;
	return 0;
}

int shmb_noise_responder_init(struct shmb_noise_handshake *hs, const void *prologue,
			      size_t prologue_len, const struct shmb_noise_keypair *local)
{
	int r = handshake_init(hs, prologue, prologue_len, local, local->public);

	if (r)
		return r;
	hs->stage = STAGE_READ_1;
	return 0;
}

void shmb_noise_handshake_deinit(struct shmb_noise_handshake *hs)
{
	sodium_memzero(hs, sizeof(*hs));
}

int shmb_noise_set_ephemeral(struct shmb_noise_handshake *hs,
			     const uint8_t secret[SHMB_NOISE_KEY_LEN])
{
	int r;

	if (hs->stage != STAGE_WRITE_1 && hs->stage != STAGE_READ_1 && hs->stage != STAGE_WRITE_2)
		return -EINVAL;
	r = shmb_noise_public_from_secret(hs->ephemeral.public, secret);
	if (r)
		return r;
	memcpy(hs->ephemeral.secret, secret, sizeof(hs->ephemeral.secret));
	hs->has_ephemeral = true;
	return 0;
}

/* Token "e", outgoing. Made this late so that a stranger's bad message 1 does not cost us a key. */
static int put_ephemeral(struct shmb_noise_handshake *hs, uint8_t *out)
{
	int r;

	if (!hs->has_ephemeral) {
		r = shmb_noise_keypair_generate(&hs->ephemeral);
		if (r)
			return r;
		hs->has_ephemeral = true;
	}
	memcpy(out, hs->ephemeral.public, SHMB_NOISE_KEY_LEN);
	mix_hash(hs, out, SHMB_NOISE_KEY_LEN);
	return 0;
}

/* Token "e", incoming. */
static void get_ephemeral(struct shmb_noise_handshake *hs, const uint8_t *in)
{
	memcpy(hs->remote_ephemeral, in, SHMB_NOISE_KEY_LEN);
	mix_hash(hs, in, SHMB_NOISE_KEY_LEN);
}

static int put_message_1(struct shmb_noise_handshake *hs, const void *payload, size_t len,
			 uint8_t *out)
{
	int r;

	r = put_ephemeral(hs, out);
	if (r)
		return r;
	r = mix_dh(hs, hs->ephemeral.secret, hs->remote_static); /* es */
	if (r)
		return r;
	r = seal_and_hash(hs, hs->local.public, SHMB_NOISE_KEY_LEN, out + OFFSET_STATIC);
	if (r < 0)
		return r;
	r = mix_dh(hs, hs->local.secret, hs->remote_static); /* ss */
	if (r)
		return r;
	return seal_and_hash(hs, payload, len, out + OFFSET_PAYLOAD_1);
}

static int get_message_1(struct shmb_noise_handshake *hs, const uint8_t *in, size_t len,
			 void *payload)
{
	int r;

	get_ephemeral(hs, in);
	r = mix_dh(hs, hs->local.secret, hs->remote_ephemeral); /* es */
	if (r)
		return r;
	r = open_and_hash(hs, in + OFFSET_STATIC, OFFSET_PAYLOAD_1 - OFFSET_STATIC,
			  hs->remote_static);
	if (r < 0)
		return r;
	r = mix_dh(hs, hs->local.secret, hs->remote_static); /* ss */
	if (r)
		return r;
	return open_and_hash(hs, in + OFFSET_PAYLOAD_1, len - OFFSET_PAYLOAD_1, payload);
}

static int put_message_2(struct shmb_noise_handshake *hs, const void *payload, size_t len,
			 uint8_t *out)
{
	int r;

	r = put_ephemeral(hs, out);
	if (r)
		return r;
	r = mix_dh(hs, hs->ephemeral.secret, hs->remote_ephemeral); /* ee */
	if (r)
		return r;
	r = mix_dh(hs, hs->ephemeral.secret, hs->remote_static); /* se */
	if (r)
		return r;
	return seal_and_hash(hs, payload, len, out + OFFSET_PAYLOAD_2);
}

static int get_message_2(struct shmb_noise_handshake *hs, const uint8_t *in, size_t len,
			 void *payload)
{
	int r;

	get_ephemeral(hs, in);
	r = mix_dh(hs, hs->ephemeral.secret, hs->remote_ephemeral); /* ee */
	if (r)
		return r;
	r = mix_dh(hs, hs->local.secret, hs->remote_ephemeral); /* se */
	if (r)
		return r;
	return open_and_hash(hs, in + OFFSET_PAYLOAD_2, len - OFFSET_PAYLOAD_2, payload);
}

/* Would a message of @len payload bytes be sound, and does it fit? */
static bool can_write(size_t len, size_t overhead, size_t out_cap)
{
	return len <= SHMB_NOISE_MESSAGE_MAX - overhead && out_cap >= len + overhead;
}

static bool can_read(size_t len, size_t overhead, size_t cap)
{
	return len >= overhead && len <= SHMB_NOISE_MESSAGE_MAX && len - overhead <= cap;
}

/* A step that failed leaves a half-mixed state: of no use, and full of secrets. */
static int give_up(struct shmb_noise_handshake *hs, int error)
{
	shmb_noise_handshake_deinit(hs);
	return error;
}

int shmb_noise_write_1(struct shmb_noise_handshake *hs, const void *payload, size_t len, void *out,
		       size_t out_cap)
{
	int r;

	if (hs->stage != STAGE_WRITE_1 || !can_write(len, SHMB_NOISE_OVERHEAD_1, out_cap))
		return -EINVAL;
	r = put_message_1(hs, payload, len, out);
	if (r < 0)
		return give_up(hs, r);
	hs->stage = STAGE_READ_2;
	return (int)(len + SHMB_NOISE_OVERHEAD_1);
}

int shmb_noise_read_1(struct shmb_noise_handshake *hs, const void *in, size_t len, void *payload,
		      size_t cap)
{
	int r;

	if (hs->stage != STAGE_READ_1)
		return -EINVAL;
	if (!can_read(len, SHMB_NOISE_OVERHEAD_1, cap))
		return give_up(hs, -EBADMSG);
	r = get_message_1(hs, in, len, payload);
	if (r < 0)
		return give_up(hs, r);
	hs->stage = STAGE_WRITE_2;
	return r;
}

int shmb_noise_write_2(struct shmb_noise_handshake *hs, const void *payload, size_t len, void *out,
		       size_t out_cap)
{
	int r;

	if (hs->stage != STAGE_WRITE_2 || !can_write(len, SHMB_NOISE_OVERHEAD_2, out_cap))
		return -EINVAL;
	r = put_message_2(hs, payload, len, out);
	if (r < 0)
		return give_up(hs, r);
	hs->stage = STAGE_SPLIT;
	return (int)(len + SHMB_NOISE_OVERHEAD_2);
}

int shmb_noise_read_2(struct shmb_noise_handshake *hs, const void *in, size_t len, void *payload,
		      size_t cap)
{
	int r;

	if (hs->stage != STAGE_READ_2)
		return -EINVAL;
	if (!can_read(len, SHMB_NOISE_OVERHEAD_2, cap))
		return give_up(hs, -EBADMSG);
	r = get_message_2(hs, in, len, payload);
	if (r < 0)
		return give_up(hs, r);
	hs->stage = STAGE_SPLIT;
	return r;
}

const uint8_t *shmb_noise_remote_static(const struct shmb_noise_handshake *hs)
{
	if (hs->stage == STAGE_DEAD || hs->stage == STAGE_READ_1)
		return NULL;
	return hs->remote_static;
}

const uint8_t *shmb_noise_handshake_hash(const struct shmb_noise_handshake *hs)
{
	return hs->stage >= STAGE_SPLIT ? hs->hash : NULL;
}

/* Split */
int shmb_noise_split(struct shmb_noise_handshake *hs, struct shmb_noise_cipher *send,
		     struct shmb_noise_cipher *receive)
{
	uint8_t to_responder[SHMB_NOISE_HASH_LEN], to_initiator[SHMB_NOISE_HASH_LEN];

	if (hs->stage != STAGE_SPLIT)
		return -EINVAL;
	hkdf2(to_responder, to_initiator, hs->chaining_key, NULL, 0);
	cipher_init(send, hs->initiator ? to_responder : to_initiator);
	cipher_init(receive, hs->initiator ? to_initiator : to_responder);
	sodium_memzero(to_responder, sizeof(to_responder));
	sodium_memzero(to_initiator, sizeof(to_initiator));

	/* The hash and the peer's key are public and outlive this. */
	shmb_noise_cipher_deinit(&hs->cipher);
	sodium_memzero(hs->chaining_key, sizeof(hs->chaining_key));
	sodium_memzero(&hs->local, sizeof(hs->local));
	sodium_memzero(&hs->ephemeral, sizeof(hs->ephemeral));
	hs->stage = STAGE_DONE;
	return 0;
}
