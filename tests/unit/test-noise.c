/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The handshake and the records against a public vector, and against everything a peer may do
 * wrong. The vector is the Noise_IK_25519_ChaChaPoly_BLAKE2b entry of
 * https://github.com/haskell-cryptography/cacophony (vectors/cacophony.txt).
 */

#include "lib/noise.h"

#include <check.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define PROLOGUE     "test-noise"
#define PROLOGUE_LEN (sizeof(PROLOGUE) - 1)
#define PAYLOAD	     "sixteen bytes..."
#define PAYLOAD_LEN  16

static const char vector_prologue[] = "4a6f686e2047616c74";
static const char vector_initiator_static[] =
	"e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
static const char vector_initiator_ephemeral[] =
	"893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
static const char vector_responder_static[] =
	"4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
static const char vector_responder_public[] =
	"31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62";
static const char vector_responder_ephemeral[] =
	"bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
static const char vector_handshake_hash[] =
	"1c8fa891cb414fedba6daa7c6f4ae0a6d98e5f9768cc9cecd27e805614943ee9"
	"c8a1b27fbfb76dc197255c8aa69f6b4285c423840b8bedf45e652ca64f797d81";

static const struct {
	const char *payload;
	const char *message;
} vector_messages[] = {
	{ "4c756477696720766f6e204d69736573",
	  "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
	  "ba83a447b38c83e327ad936929812f624884847b7831e95e197b2f797088efdd"
	  "2f88f1db7e1fb0e99c64419097af91cee64e470f4b6fcd9298ce0b56fe20f86e"
	  "13bf70439c538e3602a7127af71a29cc" },
	{ "4d757272617920526f746862617264",
	  "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
	  "9f069b267a06b3de3ecb1043bcb098e9af91d9c64748d998c7b47890871571" },
	{ "462e20412e20486179656b", "cd54383060e7a28434cca27fb1cc524cfbabeb18181589df219d07" },
	{ "4361726c204d656e676572", "a856d3bf0246bfc476c655009cd1ed677b8dcc5b349ae8ef2a05f2" },
	{ "4a65616e2d426170746973746520536179",
	  "49063084b2c51f098337cb8a13739ac848f907e67cfb2cc8a8b60586467aa02fc7" },
	{ "457567656e2042f6686d20766f6e2042617765726b",
	  "8b9709d23b47e4639df7678d7a21741eba4ef1e9c60383001c7435549c20f9d56f30e935d3" },
};

/* Points of order 1, 2, 4 and 8, and their non-canonical spellings. */
static const char *const low_order_points[] = {
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
};
#define LOW_ORDER_POINTS ((int)(sizeof(low_order_points) / sizeof(low_order_points[0])))

/* Two peers, and the bytes between them. */
struct pair {
	struct shmb_noise_keypair initiator_keys, responder_keys;
	struct shmb_noise_handshake initiator, responder;
	struct shmb_noise_cipher initiator_send, initiator_receive;
	struct shmb_noise_cipher responder_send, responder_receive;
	uint8_t message_1[SHMB_NOISE_OVERHEAD_1 + PAYLOAD_LEN];
	uint8_t message_2[SHMB_NOISE_OVERHEAD_2 + PAYLOAD_LEN];
};

static struct pair p;

static size_t unhex(uint8_t *out, size_t cap, const char *hex)
{
	size_t len;

	ck_assert_int_eq(sodium_hex2bin(out, cap, hex, strlen(hex), NULL, &len, NULL), 0);
	return len;
}

static void begin(void)
{
	ck_assert_int_eq(shmb_noise_initiator_init(&p.initiator, PROLOGUE, PROLOGUE_LEN,
						   &p.initiator_keys, p.responder_keys.public),
			 0);
	ck_assert_int_eq(
		shmb_noise_responder_init(&p.responder, PROLOGUE, PROLOGUE_LEN, &p.responder_keys),
		0);
}

static void setup(void)
{
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(shmb_noise_keypair_generate(&p.initiator_keys), 0);
	ck_assert_int_eq(shmb_noise_keypair_generate(&p.responder_keys), 0);
	begin();
}

static void send_1(void)
{
	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, PAYLOAD, PAYLOAD_LEN, p.message_1,
					    sizeof(p.message_1)),
			 sizeof(p.message_1));
}

static int take_1(const void *message, size_t len)
{
	uint8_t payload[PAYLOAD_LEN];

	return shmb_noise_read_1(&p.responder, message, len, payload, sizeof(payload));
}

static void send_2(void)
{
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), PAYLOAD_LEN);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, PAYLOAD, PAYLOAD_LEN, p.message_2,
					    sizeof(p.message_2)),
			 sizeof(p.message_2));
}

static int take_2(const void *message, size_t len)
{
	uint8_t payload[PAYLOAD_LEN];

	return shmb_noise_read_2(&p.initiator, message, len, payload, sizeof(payload));
}

static void split(void)
{
	ck_assert_int_eq(shmb_noise_split(&p.initiator, &p.initiator_send, &p.initiator_receive),
			 0);
	ck_assert_int_eq(shmb_noise_split(&p.responder, &p.responder_send, &p.responder_receive),
			 0);
}

static void setup_session(void)
{
	setup();
	send_1();
	send_2();
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), PAYLOAD_LEN);
	split();
}

/* A record that carries one number. */
struct record {
	uint8_t bytes[sizeof(uint32_t) + SHMB_NOISE_TAG_LEN];
};

static struct record seal(struct shmb_noise_cipher *cipher, uint32_t number)
{
	struct record record;

	ck_assert_int_eq(shmb_noise_seal(cipher, "ad", 2, &number, sizeof(number), record.bytes),
			 sizeof(record));
	return record;
}

static int opens(struct shmb_noise_cipher *cipher, struct record record, uint32_t number)
{
	uint32_t found = ~number;
	int r = shmb_noise_open(cipher, "ad", 2, record.bytes, sizeof(record), &found);

	if (r < 0)
		return r;
	ck_assert_int_eq(r, sizeof(found));
	ck_assert_uint_eq(found, number);
	return 0;
}

static int is_wiped(const void *object, size_t len)
{
	return sodium_is_zero(object, len);
}

static void vector_keys(struct shmb_noise_keypair *pair, const char *secret)
{
	ck_assert_uint_eq(unhex(pair->secret, sizeof(pair->secret), secret), SHMB_NOISE_KEY_LEN);
	ck_assert_int_eq(shmb_noise_public_from_secret(pair->public, pair->secret), 0);
}

static void vector_begin(void)
{
	uint8_t prologue[64], ephemeral[SHMB_NOISE_KEY_LEN], public[SHMB_NOISE_KEY_LEN];
	size_t len = unhex(prologue, sizeof(prologue), vector_prologue);

	vector_keys(&p.initiator_keys, vector_initiator_static);
	vector_keys(&p.responder_keys, vector_responder_static);
	unhex(public, sizeof(public), vector_responder_public);
	ck_assert_mem_eq(public, p.responder_keys.public, sizeof(public));
	ck_assert_int_eq(
		shmb_noise_initiator_init(&p.initiator, prologue, len, &p.initiator_keys, public),
		0);
	ck_assert_int_eq(shmb_noise_responder_init(&p.responder, prologue, len, &p.responder_keys),
			 0);
	unhex(ephemeral, sizeof(ephemeral), vector_initiator_ephemeral);
	ck_assert_int_eq(shmb_noise_set_ephemeral(&p.initiator, ephemeral), 0);
	unhex(ephemeral, sizeof(ephemeral), vector_responder_ephemeral);
	ck_assert_int_eq(shmb_noise_set_ephemeral(&p.responder, ephemeral), 0);
}

static void vector_handshake_message(int i)
{
	uint8_t payload[64], expected[256], message[256], taken[64];
	size_t len = unhex(payload, sizeof(payload), vector_messages[i].payload);
	size_t message_len = unhex(expected, sizeof(expected), vector_messages[i].message);
	int r;

	r = i == 0 ? shmb_noise_write_1(&p.initiator, payload, len, message, sizeof(message))
		   : shmb_noise_write_2(&p.responder, payload, len, message, sizeof(message));
	ck_assert_int_eq(r, message_len);
	ck_assert_mem_eq(message, expected, message_len);
	r = i == 0 ? shmb_noise_read_1(&p.responder, message, message_len, taken, sizeof(taken))
		   : shmb_noise_read_2(&p.initiator, message, message_len, taken, sizeof(taken));
	ck_assert_int_eq(r, len);
	ck_assert_mem_eq(taken, payload, len);
}

static void vector_transport_message(int i)
{
	struct shmb_noise_cipher *send = i % 2 ? &p.responder_send : &p.initiator_send;
	struct shmb_noise_cipher *receive = i % 2 ? &p.initiator_receive : &p.responder_receive;
	uint8_t payload[64], expected[128], message[128], taken[128];
	size_t len = unhex(payload, sizeof(payload), vector_messages[i].payload);
	size_t message_len = unhex(expected, sizeof(expected), vector_messages[i].message);

	ck_assert_int_eq(shmb_noise_seal(send, NULL, 0, payload, len, message), message_len);
	ck_assert_mem_eq(message, expected, message_len);
	ck_assert_int_eq(shmb_noise_open(receive, NULL, 0, message, message_len, taken), len);
	ck_assert_mem_eq(taken, payload, len);
}

START_TEST(public_vector_is_reproduced)
{
	uint8_t hash[SHMB_NOISE_HASH_LEN];

	vector_begin();
	vector_handshake_message(0);
	vector_handshake_message(1);
	ck_assert_uint_eq(unhex(hash, sizeof(hash), vector_handshake_hash), sizeof(hash));
	ck_assert_mem_eq(shmb_noise_handshake_hash(&p.initiator), hash, sizeof(hash));
	ck_assert_mem_eq(shmb_noise_handshake_hash(&p.responder), hash, sizeof(hash));
	split();
	for (int i = 2; i < 6; i++)
		vector_transport_message(i);
}
END_TEST

START_TEST(each_side_learns_who_the_other_is)
{
	ck_assert_ptr_null(shmb_noise_remote_static(&p.responder));
	send_1();
	send_2();
	ck_assert_mem_eq(shmb_noise_remote_static(&p.responder), p.initiator_keys.public,
			 SHMB_NOISE_KEY_LEN);
	ck_assert_mem_eq(shmb_noise_remote_static(&p.initiator), p.responder_keys.public,
			 SHMB_NOISE_KEY_LEN);
	ck_assert_ptr_null(shmb_noise_handshake_hash(&p.initiator));
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), PAYLOAD_LEN);
	ck_assert_mem_eq(shmb_noise_handshake_hash(&p.initiator),
			 shmb_noise_handshake_hash(&p.responder), SHMB_NOISE_HASH_LEN);
}
END_TEST

START_TEST(keys_and_ephemerals_are_fresh_each_time)
{
	uint8_t first[sizeof(p.message_1)];

	ck_assert_mem_ne(p.initiator_keys.secret, p.responder_keys.secret, SHMB_NOISE_KEY_LEN);
	send_1();
	memcpy(first, p.message_1, sizeof(first));
	send_2();
	begin();
	send_1();
	ck_assert_mem_ne(first, p.message_1, SHMB_NOISE_KEY_LEN);
	memcpy(first, p.message_2, SHMB_NOISE_KEY_LEN);
	send_2();
	ck_assert_mem_ne(first, p.message_2, SHMB_NOISE_KEY_LEN);
}
END_TEST

START_TEST(every_flipped_bit_of_message_1_is_refused)
{
	uint8_t bad[sizeof(p.message_1)];

	send_1();
	for (size_t bit = 0; bit < 8 * sizeof(bad); bit++) {
		begin();
		memcpy(bad, p.message_1, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_eq(take_1(bad, sizeof(bad)), -EBADMSG);
		ck_assert(is_wiped(&p.responder, sizeof(p.responder)));
	}
	begin();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), PAYLOAD_LEN);
}
END_TEST

START_TEST(every_flipped_bit_of_message_2_is_refused)
{
	struct shmb_noise_handshake waiting;
	uint8_t bad[sizeof(p.message_2)];

	send_1();
	send_2();
	waiting = p.initiator;
	for (size_t bit = 0; bit < 8 * sizeof(bad); bit++) {
		p.initiator = waiting;
		memcpy(bad, p.message_2, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_eq(take_2(bad, sizeof(bad)), -EBADMSG);
		ck_assert(is_wiped(&p.initiator, sizeof(p.initiator)));
	}
	p.initiator = waiting;
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), PAYLOAD_LEN);
}
END_TEST

START_TEST(truncated_messages_are_refused)
{
	struct shmb_noise_handshake waiting;

	send_1();
	for (size_t len = 0; len < sizeof(p.message_1); len++) {
		uint8_t *exact = malloc(len + !len);

		memcpy(exact, p.message_1, len);
		ck_assert_int_eq(take_1(exact, len), -EBADMSG);
		free(exact);
		shmb_noise_responder_init(&p.responder, PROLOGUE, PROLOGUE_LEN, &p.responder_keys);
	}
	send_2();
	waiting = p.initiator;
	for (size_t len = 0; len < sizeof(p.message_2); len++) {
		uint8_t *exact = malloc(len + !len);

		memcpy(exact, p.message_2, len);
		p.initiator = waiting;
		ck_assert_int_eq(take_2(exact, len), -EBADMSG);
		free(exact);
	}
}
END_TEST

START_TEST(message_longer_than_the_room_for_it_is_refused)
{
	struct shmb_noise_handshake waiting = p.responder;
	uint8_t payload[PAYLOAD_LEN] = { 0 };

	send_1();
	ck_assert_int_eq(shmb_noise_read_1(&p.responder, p.message_1, sizeof(p.message_1), payload,
					   PAYLOAD_LEN - 1),
			 -EBADMSG);
	ck_assert(sodium_is_zero(payload, sizeof(payload)));
	p.responder = waiting;
	send_2();
	ck_assert_int_eq(shmb_noise_read_2(&p.initiator, p.message_2, sizeof(p.message_2), payload,
					   PAYLOAD_LEN - 1),
			 -EBADMSG);
	ck_assert(sodium_is_zero(payload, sizeof(payload)));
}
END_TEST

START_TEST(message_to_another_static_key_is_refused)
{
	struct shmb_noise_keypair other;

	ck_assert_int_eq(shmb_noise_keypair_generate(&other), 0);
	ck_assert_int_eq(shmb_noise_initiator_init(&p.initiator, PROLOGUE, PROLOGUE_LEN,
						   &p.initiator_keys, other.public),
			 0);
	send_1();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), -EBADMSG);
	ck_assert_ptr_null(shmb_noise_remote_static(&p.responder));
}
END_TEST

START_TEST(claim_to_a_public_key_without_its_secret_is_refused)
{
	struct shmb_noise_keypair thief;

	ck_assert_int_eq(shmb_noise_keypair_generate(&thief), 0);
	memcpy(thief.public, p.initiator_keys.public, sizeof(thief.public));
	ck_assert_int_eq(shmb_noise_initiator_init(&p.initiator, PROLOGUE, PROLOGUE_LEN, &thief,
						   p.responder_keys.public),
			 0);
	send_1();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), -EBADMSG);
	ck_assert_ptr_null(shmb_noise_remote_static(&p.responder));
}
END_TEST

START_TEST(message_with_another_prologue_is_refused)
{
	ck_assert_int_eq(shmb_noise_initiator_init(&p.initiator, PROLOGUE, PROLOGUE_LEN - 1,
						   &p.initiator_keys, p.responder_keys.public),
			 0);
	send_1();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), -EBADMSG);
}
END_TEST

START_TEST(answer_to_another_message_is_refused)
{
	send_1();
	send_2();
	begin();
	send_1();
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), -EBADMSG);
}
END_TEST

/* The sender cannot tell from the tag: only the check on the DH result stops it. */
START_TEST(low_order_remote_static_is_refused)
{
	uint8_t point[SHMB_NOISE_KEY_LEN];

	unhex(point, sizeof(point), low_order_points[_i]);
	ck_assert_int_eq(shmb_noise_initiator_init(&p.initiator, PROLOGUE, PROLOGUE_LEN,
						   &p.initiator_keys, point),
			 0);
	ck_assert_int_eq(
		shmb_noise_write_1(&p.initiator, NULL, 0, p.message_1, sizeof(p.message_1)),
		-EBADMSG);
	ck_assert(is_wiped(&p.initiator, sizeof(p.initiator)));
}
END_TEST

START_TEST(low_order_point_in_a_message_is_refused)
{
	uint8_t point[SHMB_NOISE_KEY_LEN], bad[sizeof(p.message_1)];

	unhex(point, sizeof(point), low_order_points[_i]);
	send_1();
	memcpy(bad, p.message_1, sizeof(bad));
	memcpy(bad, point, sizeof(point));
	ck_assert_int_eq(take_1(bad, sizeof(bad)), -EBADMSG);

	begin();
	send_1();
	send_2();
	memcpy(p.message_2, point, sizeof(point));
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), -EBADMSG);

	begin();
	memcpy(p.initiator.local.public, point, sizeof(point));
	send_1();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), -EBADMSG);
}
END_TEST

/* With a low-order ephemeral in message 1, our answer would be sealed with a key anyone knows. */
START_TEST(answer_to_a_low_order_ephemeral_is_refused)
{
	send_1();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), PAYLOAD_LEN);
	unhex(p.responder.remote_ephemeral, SHMB_NOISE_KEY_LEN, low_order_points[_i]);
	ck_assert_int_eq(
		shmb_noise_write_2(&p.responder, NULL, 0, p.message_2, sizeof(p.message_2)),
		-EBADMSG);
	ck_assert(is_wiped(&p.responder, sizeof(p.responder)));
}
END_TEST

START_TEST(step_out_of_turn_is_refused_and_changes_nothing)
{
	uint8_t b[256] = { 0 };
	struct shmb_noise_cipher c[2];

	ck_assert_int_eq(shmb_noise_read_1(&p.initiator, b, 96, b, 0), -EINVAL);
	ck_assert_int_eq(shmb_noise_read_2(&p.initiator, b, 48, b, 0), -EINVAL);
	ck_assert_int_eq(shmb_noise_write_2(&p.initiator, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(shmb_noise_split(&p.initiator, &c[0], &c[1]), -EINVAL);
	ck_assert_int_eq(shmb_noise_write_1(&p.responder, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(shmb_noise_read_2(&p.responder, b, 48, b, 0), -EINVAL);
	ck_assert_int_eq(shmb_noise_split(&p.responder, &c[0], &c[1]), -EINVAL);
	send_1();
	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(shmb_noise_set_ephemeral(&p.initiator, b), -EINVAL);
	ck_assert_int_eq(shmb_noise_split(&p.initiator, &c[0], &c[1]), -EINVAL);
	send_2();
	ck_assert_int_eq(take_1(p.message_1, sizeof(p.message_1)), -EINVAL);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), PAYLOAD_LEN);
	split();
	ck_assert_int_eq(shmb_noise_split(&p.initiator, &c[0], &c[1]), -EINVAL);
	ck_assert_int_eq(take_2(p.message_2, sizeof(p.message_2)), -EINVAL);
}
END_TEST

START_TEST(message_that_does_not_fit_is_not_written)
{
	static uint8_t big[SHMB_NOISE_MESSAGE_MAX + 1], out[2 * sizeof(big)];
	size_t most_1 = SHMB_NOISE_MESSAGE_MAX - SHMB_NOISE_OVERHEAD_1;
	size_t most_2 = SHMB_NOISE_MESSAGE_MAX - SHMB_NOISE_OVERHEAD_2;

	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, big, 1, out, SHMB_NOISE_OVERHEAD_1),
			 -EINVAL);
	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, big, most_1 + 1, out, sizeof(out)),
			 -EINVAL);
	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, big, SIZE_MAX, out, sizeof(out)),
			 -EINVAL);
	ck_assert(sodium_is_zero(out, sizeof(out)));
	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, big, most_1, out, sizeof(out)),
			 SHMB_NOISE_MESSAGE_MAX);
	ck_assert_int_eq(
		shmb_noise_read_1(&p.responder, out, SHMB_NOISE_MESSAGE_MAX, big, sizeof(big)),
		most_1);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, big, 1, out, SHMB_NOISE_OVERHEAD_2),
			 -EINVAL);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, big, most_2 + 1, out, sizeof(out)),
			 -EINVAL);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, big, most_2, out, sizeof(out)),
			 SHMB_NOISE_MESSAGE_MAX);
	ck_assert_int_eq(
		shmb_noise_read_2(&p.initiator, out, SHMB_NOISE_MESSAGE_MAX, big, sizeof(big)),
		most_2);
}
END_TEST

START_TEST(zeroed_and_wiped_objects_refuse_all_work)
{
	uint8_t b[256] = { 0 };

	shmb_noise_handshake_deinit(&p.initiator);
	shmb_noise_handshake_deinit(&p.responder);
	ck_assert(is_wiped(&p.initiator, sizeof(p.initiator)));
	ck_assert_int_eq(shmb_noise_write_1(&p.initiator, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(shmb_noise_read_1(&p.responder, b, 96, b, 0), -EINVAL);
	ck_assert_int_eq(shmb_noise_write_2(&p.responder, b, 0, b, sizeof(b)), -EINVAL);
	ck_assert_int_eq(shmb_noise_read_2(&p.initiator, b, 48, b, 0), -EINVAL);
	ck_assert_int_eq(shmb_noise_set_ephemeral(&p.initiator, b), -EINVAL);
	ck_assert_int_eq(shmb_noise_split(&p.initiator, &p.initiator_send, &p.initiator_receive),
			 -EINVAL);
	ck_assert_ptr_null(shmb_noise_remote_static(&p.initiator));
	ck_assert_ptr_null(shmb_noise_handshake_hash(&p.initiator));
	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, b, 1, b), -EOVERFLOW);
	ck_assert_int_eq(shmb_noise_open(&p.initiator_send, NULL, 0, b, 17, b), -EOVERFLOW);
	ck_assert_int_eq(shmb_noise_rekey(&p.initiator_send), -EOVERFLOW);
}
END_TEST

START_TEST(split_leaves_no_secret_in_the_handshake)
{
	const struct shmb_noise_handshake *hs = _i ? &p.responder : &p.initiator;

	ck_assert(is_wiped(&hs->cipher, sizeof(hs->cipher)));
	ck_assert(is_wiped(hs->chaining_key, sizeof(hs->chaining_key)));
	ck_assert(is_wiped(&hs->local, sizeof(hs->local)));
	ck_assert(is_wiped(&hs->ephemeral, sizeof(hs->ephemeral)));
	ck_assert_ptr_nonnull(shmb_noise_handshake_hash(hs));
	ck_assert_ptr_nonnull(shmb_noise_remote_static(hs));
}
END_TEST

START_TEST(records_flow_both_ways_under_different_keys)
{
	ck_assert_mem_ne(p.initiator_send.key, p.responder_send.key, SHMB_NOISE_KEY_LEN);
	for (uint32_t i = 0; i < 1000; i++) {
		struct record up = seal(&p.initiator_send, i);
		struct record down = seal(&p.responder_send, ~i);

		ck_assert_int_eq(opens(&p.responder_receive, up, i), 0);
		ck_assert_int_eq(opens(&p.initiator_receive, down, ~i), 0);
	}
}
END_TEST

START_TEST(record_may_be_sealed_and_opened_in_place)
{
	uint8_t b[PAYLOAD_LEN + SHMB_NOISE_TAG_LEN] = PAYLOAD;

	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, b, PAYLOAD_LEN, b), sizeof(b));
	ck_assert_mem_ne(b, PAYLOAD, PAYLOAD_LEN);
	ck_assert_int_eq(shmb_noise_open(&p.responder_receive, NULL, 0, b, sizeof(b), b),
			 PAYLOAD_LEN);
	ck_assert_mem_eq(b, PAYLOAD, PAYLOAD_LEN);
}
END_TEST

START_TEST(every_flipped_bit_of_a_record_is_refused)
{
	struct record good = seal(&p.initiator_send, 7);

	for (size_t bit = 0; bit < 8 * sizeof(good); bit++) {
		struct record bad = good;

		bad.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_eq(opens(&p.responder_receive, bad, 7), -EBADMSG);
	}
	ck_assert_int_eq(opens(&p.responder_receive, good, 7), 0);
}
END_TEST

START_TEST(record_with_other_associated_data_is_refused)
{
	struct record record = seal(&p.initiator_send, 7);
	uint32_t out;

	ck_assert_int_eq(
		shmb_noise_open(&p.responder_receive, "aD", 2, record.bytes, sizeof(record), &out),
		-EBADMSG);
	ck_assert_int_eq(
		shmb_noise_open(&p.responder_receive, NULL, 0, record.bytes, sizeof(record), &out),
		-EBADMSG);
	ck_assert_uint_eq(out, 0);
}
END_TEST

START_TEST(record_of_impossible_length_is_refused)
{
	static uint8_t big[SHMB_NOISE_MESSAGE_MAX], out[SHMB_NOISE_MESSAGE_MAX + 1];
	struct record record = seal(&p.initiator_send, 7);

	for (size_t len = 0; len < sizeof(record); len++)
		ck_assert_int_eq(
			shmb_noise_open(&p.responder_receive, "ad", 2, record.bytes, len, out),
			-EBADMSG);
	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, big,
					 SHMB_NOISE_MESSAGE_MAX - SHMB_NOISE_TAG_LEN + 1, out),
			 -EINVAL);
	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, big, SIZE_MAX, out), -EINVAL);
	ck_assert_uint_eq(p.initiator_send.nonce, 1);
}
END_TEST

/* Sealed under the right key, but longer than any message may be. */
START_TEST(overlong_record_is_refused)
{
	static uint8_t plain[SHMB_NOISE_MESSAGE_MAX - SHMB_NOISE_TAG_LEN + 1];
	static uint8_t sealed[SHMB_NOISE_MESSAGE_MAX + 1];
	static const uint8_t nonce[12];
	const uint8_t *key = p.initiator_send.key;

	crypto_aead_chacha20poly1305_ietf_encrypt(sealed, NULL, plain, sizeof(plain), NULL, 0, NULL,
						  nonce, key);
	ck_assert_int_eq(
		shmb_noise_open(&p.responder_receive, NULL, 0, sealed, sizeof(sealed), plain),
		-EBADMSG);
}
END_TEST

START_TEST(replayed_record_is_refused)
{
	struct record record = seal(&p.initiator_send, 1);

	ck_assert_int_eq(opens(&p.responder_receive, record, 1), 0);
	ck_assert_int_eq(opens(&p.responder_receive, record, 1), -EBADMSG);
}
END_TEST

START_TEST(reordered_and_skipped_records_are_refused)
{
	struct record first = seal(&p.initiator_send, 1);
	struct record second = seal(&p.initiator_send, 2);

	ck_assert_int_eq(opens(&p.responder_receive, second, 2), -EBADMSG);
	ck_assert_int_eq(opens(&p.responder_receive, first, 1), 0);
	ck_assert_int_eq(opens(&p.responder_receive, second, 2), 0);
}
END_TEST

START_TEST(reflected_record_is_refused)
{
	struct record record = seal(&p.initiator_send, 1);

	ck_assert_int_eq(opens(&p.initiator_receive, record, 1), -EBADMSG);
}
END_TEST

START_TEST(key_is_refused_once_it_is_used_up)
{
	uint8_t b[64] = { 0 };
	struct record record;

	ck_assert_uint_eq(p.initiator_send.left, UINT64_C(1) << 32);
	p.initiator_send.nonce = p.responder_receive.nonce = (UINT64_C(1) << 32) - 2;
	p.initiator_send.left = p.responder_receive.left = 2;
	record = seal(&p.initiator_send, 1);
	ck_assert_int_eq(opens(&p.responder_receive, record, 1), 0);
	record = seal(&p.initiator_send, 2);
	ck_assert_int_eq(opens(&p.responder_receive, record, 2), 0);

	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, b, 1, b), -EOVERFLOW);
	ck_assert_int_eq(opens(&p.responder_receive, record, 2), -EOVERFLOW);
	ck_assert_int_eq(shmb_noise_rekey(&p.initiator_send), -EOVERFLOW);
	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, b, 1, b), -EOVERFLOW);
	ck_assert_uint_eq(p.initiator_send.nonce, UINT64_C(1) << 32);
}
END_TEST

START_TEST(nonce_set_aside_for_rekey_is_never_used)
{
	uint8_t b[64] = { 0 };

	p.initiator_send.nonce = UINT64_MAX - 1;
	ck_assert_int_eq(shmb_noise_rekey(&p.initiator_send), 0);
	seal(&p.initiator_send, 1);
	ck_assert_int_eq(shmb_noise_seal(&p.initiator_send, NULL, 0, b, 1, b), -EOVERFLOW);
	ck_assert_int_eq(shmb_noise_rekey(&p.initiator_send), -EOVERFLOW);
}
END_TEST

START_TEST(rekey_on_both_sides_goes_on_and_shuts_the_old_key_out)
{
	struct shmb_noise_cipher old_send, old_receive;
	struct record record;

	for (uint32_t i = 0; i < 100; i++) {
		old_send = p.initiator_send;
		old_receive = p.responder_receive;
		ck_assert_int_eq(shmb_noise_rekey(&p.initiator_send), 0);
		ck_assert_int_eq(shmb_noise_rekey(&p.responder_receive), 0);
		ck_assert_uint_eq(p.initiator_send.nonce, i);
		ck_assert_uint_eq(p.initiator_send.left, SHMB_NOISE_RECORDS_PER_KEY);
		record = seal(&old_send, i);
		ck_assert_int_eq(opens(&p.responder_receive, record, i), -EBADMSG);
		record = seal(&p.initiator_send, i);
		ck_assert_int_eq(opens(&old_receive, record, i), -EBADMSG);
		ck_assert_int_eq(opens(&p.responder_receive, record, i), 0);
	}
}
END_TEST

START_TEST(rekey_is_the_one_of_the_specification)
{
	static const uint8_t zeros[32],
		nonce[12] = { 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t expected[48];

	crypto_aead_chacha20poly1305_ietf_encrypt(expected, NULL, zeros, sizeof(zeros), NULL, 0,
						  NULL, nonce, p.initiator_send.key);
	ck_assert_int_eq(shmb_noise_rekey(&p.initiator_send), 0);
	ck_assert_mem_eq(p.initiator_send.key, expected, SHMB_NOISE_KEY_LEN);
}
END_TEST

START_TEST(wiped_cipher_holds_no_key)
{
	shmb_noise_cipher_deinit(&p.initiator_send);
	ck_assert(is_wiped(&p.initiator_send, sizeof(p.initiator_send)));
}
END_TEST

static TCase *handshake_case(void)
{
	TCase *tc = tcase_create("handshake");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, public_vector_is_reproduced);
	tcase_add_test(tc, each_side_learns_who_the_other_is);
	tcase_add_test(tc, keys_and_ephemerals_are_fresh_each_time);
	tcase_add_test(tc, every_flipped_bit_of_message_1_is_refused);
	tcase_add_test(tc, every_flipped_bit_of_message_2_is_refused);
	tcase_add_test(tc, truncated_messages_are_refused);
	tcase_add_test(tc, message_longer_than_the_room_for_it_is_refused);
	tcase_add_test(tc, message_to_another_static_key_is_refused);
	tcase_add_test(tc, claim_to_a_public_key_without_its_secret_is_refused);
	tcase_add_test(tc, message_with_another_prologue_is_refused);
	tcase_add_test(tc, answer_to_another_message_is_refused);
	tcase_add_loop_test(tc, low_order_remote_static_is_refused, 0, LOW_ORDER_POINTS);
	tcase_add_loop_test(tc, low_order_point_in_a_message_is_refused, 0, LOW_ORDER_POINTS);
	tcase_add_loop_test(tc, answer_to_a_low_order_ephemeral_is_refused, 0, LOW_ORDER_POINTS);
	tcase_add_test(tc, step_out_of_turn_is_refused_and_changes_nothing);
	tcase_add_test(tc, message_that_does_not_fit_is_not_written);
	tcase_add_test(tc, zeroed_and_wiped_objects_refuse_all_work);
	return tc;
}

static TCase *records_case(void)
{
	TCase *tc = tcase_create("records");

	tcase_add_checked_fixture(tc, setup_session, NULL);
	tcase_add_loop_test(tc, split_leaves_no_secret_in_the_handshake, 0, 2);
	tcase_add_test(tc, records_flow_both_ways_under_different_keys);
	tcase_add_test(tc, record_may_be_sealed_and_opened_in_place);
	tcase_add_test(tc, every_flipped_bit_of_a_record_is_refused);
	tcase_add_test(tc, record_with_other_associated_data_is_refused);
	tcase_add_test(tc, record_of_impossible_length_is_refused);
	tcase_add_test(tc, overlong_record_is_refused);
	tcase_add_test(tc, replayed_record_is_refused);
	tcase_add_test(tc, reordered_and_skipped_records_are_refused);
	tcase_add_test(tc, reflected_record_is_refused);
	tcase_add_test(tc, key_is_refused_once_it_is_used_up);
	tcase_add_test(tc, nonce_set_aside_for_rekey_is_never_used);
	tcase_add_test(tc, rekey_on_both_sides_goes_on_and_shuts_the_old_key_out);
	tcase_add_test(tc, rekey_is_the_one_of_the_specification);
	tcase_add_test(tc, wiped_cipher_holds_no_key);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("noise");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, handshake_case());
	suite_add_tcase(suite, records_case());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
