/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session.h"

static struct shmb_noise_keypair broker_key, client_key;
static struct shmb_session client, broker;
static _Alignas(8) uint8_t packet[SHMB_PACKET_LEN_MAX];
static _Alignas(8) uint8_t plain[SHMB_PACKET_LEN_MAX];
static struct shmb_message message;

static void setup(void)
{
	ck_assert_int_eq(shmb_noise_keypair_generate(&broker_key), 0);
	ck_assert_int_eq(shmb_noise_keypair_generate(&client_key), 0);
}

static void shake(void)
{
	struct shmb_handshake_1_payload p1 = { .own_pid = 42, .label = "test" }, got1;
	struct shmb_handshake_2_payload p2 = { .session_id = 7, .instance = 8 }, got2;
	struct shmb_handshake_1 h1;
	struct shmb_handshake_2 h2;
	uint8_t key[SHMB_KEY_LEN];

	ck_assert_int_eq(shmb_session_connect(&client, &client_key, broker_key.public, &p1, &h1),
			 0);
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key), 0);
	ck_assert_mem_eq(&p1, &got1, sizeof(p1));
	ck_assert_mem_eq(key, client_key.public, sizeof(key));
	ck_assert_int_eq(shmb_session_accepted(&broker, &p2, &h2), 0);
	ck_assert_int_eq(shmb_session_connected(&client, &h2, sizeof(h2), &got2), 0);
	ck_assert_uint_eq(got2.version, 1);
	ck_assert_uint_eq(got2.session_id, 7);
	ck_assert_uint_eq(got2.packet_len_max, SHMB_PACKET_LEN_MAX);
	ck_assert_uint_eq(got2.rekey_records, 65536);
}

static int seal(struct shmb_session *from, uint32_t type, const void *body, uint32_t len)
{
	struct shmb_message m = { .type = type, .request_id = 3, .body = body, .body_len = len };

	return shmb_session_seal(from, &m, packet);
}

static int open_packet(struct shmb_session *to, int len)
{
	return shmb_session_open(to, packet, (uint32_t)len, plain, &message);
}

START_TEST(carries_messages_both_ways)
{
	struct shmb_fd_descriptor fds[2] = { { .kind = 1, .st_ino = 5 }, { .kind = 2 } };
	struct shmb_message m = { .type = 66,
				  .body = (const uint8_t *)"12345678",
				  .body_len = 8,
				  .fd_count = 2,
				  .descriptors = fds };
	int n;

	shake();
	n = seal(&client, 9, "hello", 5);
	ck_assert_int_eq(n, 8 + 16 + 5 + 16);
	ck_assert_int_eq(open_packet(&broker, n), 0);
	ck_assert_uint_eq(message.type, 9);
	ck_assert_uint_eq(message.request_id, 3);
	ck_assert_uint_eq(message.body_len, 5);
	ck_assert_mem_eq(message.body, "hello", 5);
	n = shmb_session_seal(&broker, &m, packet);
	ck_assert_int_eq(open_packet(&client, n), 0);
	ck_assert_uint_eq(message.fd_count, 2);
	ck_assert_mem_eq(message.descriptors, fds, sizeof(fds));
	n = seal(&client, 10, NULL, 0);
	ck_assert_int_eq(open_packet(&broker, n), 0);
	shmb_session_deinit(&client);
	shmb_session_deinit(&broker);
	ck_assert_int_eq(seal(&client, 1, NULL, 0), -EOVERFLOW);
	ck_assert_int_eq(open_packet(&broker, n), -EBADMSG);
}
END_TEST

START_TEST(refuses_the_wrong_broker_key)
{
	struct shmb_handshake_1_payload p1 = { 0 }, got1;
	struct shmb_handshake_1 h1;
	uint8_t key[SHMB_KEY_LEN];

	ck_assert_int_eq(shmb_session_connect(&client, &client_key, client_key.public, &p1, &h1),
			 0);
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key),
			 -EKEYREJECTED);
	memset(key, 0, sizeof(key));
	ck_assert_int_eq(shmb_session_connect(&client, &client_key, key, &p1, &h1), -EKEYREJECTED);
}
END_TEST

START_TEST(refuses_every_flipped_bit_of_a_handshake)
{
	struct shmb_handshake_1_payload p1 = { 0 }, got1;
	struct shmb_handshake_2_payload p2 = { 0 }, got2;
	struct shmb_session first;
	struct shmb_handshake_1 h1;
	struct shmb_handshake_2 h2;
	uint8_t key[SHMB_KEY_LEN];
	int r;

	ck_assert_int_eq(shmb_session_connect(&client, &client_key, broker_key.public, &p1, &h1),
			 0);
	for (unsigned bit = 0; bit < sizeof(h1) * 8; bit += 3) {
		((uint8_t *)&h1)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		r = shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key);
		/* The highest bit of an X25519 key means nothing to the curve, but is hashed. */
		ck_assert(r == -EKEYREJECTED || r == -EPROTONOSUPPORT);
		((uint8_t *)&h1)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1) - 1, &got1, key),
			 -EKEYREJECTED);
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key), 0);
	ck_assert_int_eq(shmb_session_accepted(&broker, &p2, &h2), 0);
	first = client;
	for (unsigned bit = 0; bit < sizeof(h2) * 8; bit += 3) {
		client = first;
		((uint8_t *)&h2)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(shmb_session_connected(&client, &h2, sizeof(h2), &got2),
				 -EKEYREJECTED);
		((uint8_t *)&h2)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	client = first;
	ck_assert_int_eq(shmb_session_connected(&client, &h2, sizeof(h2), &got2), 0);
}
END_TEST

START_TEST(knows_other_versions)
{
	struct shmb_handshake_1_payload p1 = { 0 }, got1;
	struct shmb_version_reject reject = { .header = { 4, 1, 0, 0, sizeof(reject) },
					      .version_min = 2,
					      .version_max = 3 };
	struct shmb_handshake_2_payload got2;
	struct shmb_handshake_1 h1;
	uint8_t key[SHMB_KEY_LEN];

	shmb_session_connect(&client, &client_key, broker_key.public, &p1, &h1);
	h1.version_min = h1.version_max = 2;
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key),
			 -EPROTONOSUPPORT);
	/* A range that includes ours is fine, but somebody changed it on the way. */
	h1.version_min = 0;
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key),
			 -EKEYREJECTED);
	h1.version_min = 3;
	ck_assert_int_eq(shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key),
			 -EKEYREJECTED);
	ck_assert_int_eq(shmb_session_connected(&client, &reject, sizeof(reject), &got2),
			 -EPROTONOSUPPORT);
}
END_TEST

START_TEST(refuses_every_flipped_bit_of_a_record)
{
	int n;

	shake();
	n = seal(&client, 9, "hello", 5);
	for (int bit = 0; bit < n * 8; bit++) {
		packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(open_packet(&broker, n), -EBADMSG);
		packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (int len = 0; len < n; len++)
		ck_assert_int_eq(open_packet(&broker, len), -EBADMSG);
	ck_assert_int_eq(open_packet(&broker, n), 0);
	ck_assert_int_eq(open_packet(&broker, n), -EBADMSG); /* a replay */
	seal(&client, 9, "lost", 4);
	n = seal(&client, 9, "next", 4);
	ck_assert_int_eq(open_packet(&broker, n), -EBADMSG); /* a gap */
}
END_TEST

/* What a client can seal although shmb_session_seal() would not. */
static int seal_raw(const void *data, uint8_t fd_count, size_t len)
{
	struct shmb_packet_header header = { 3, 1, fd_count, 0, (uint32_t)(8 + len + 16) };

	memcpy(packet, &header, sizeof(header));
	ck_assert_int_ge(shmb_noise_seal(&client.send, &header, 8, data, len, packet + 8), 0);
	return (int)header.packet_len;
}

START_TEST(refuses_lengths_that_do_not_add_up)
{
	_Alignas(8) uint8_t data[512] = { 0 };
	struct shmb_message_header *inner = (void *)data;
	struct shmb_fd_descriptor *fd = (void *)(data + 16);

	shake();
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 0)), -EPROTO);
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 15)), -EPROTO);
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 16)), 0);
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 17)), -EPROTO);
	inner->body_len = UINT32_MAX;
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 16)), -EPROTO);
	inner->body_len = 1;
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 17)), 0);
	inner->zero = 1;
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 17)), -EPROTO);
	inner->zero = 0;
	inner->body_len = 0;
	inner->fd_count = 1;
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 0, 16)), -EPROTO);
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 1, 16)), -EPROTO);
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 1, 16 + 64)), 0);
	fd->zero[15] = 1;
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 1, 16 + 64)), -EPROTO);
	fd->zero[15] = 0;
	inner->body_len = 4;
	ck_assert_int_eq(open_packet(&broker, seal_raw(data, 1, 16 + 4 + 64)), -EPROTO);
}
END_TEST

START_TEST(bounds_what_it_seals)
{
	static uint8_t body[SHMB_PACKET_LEN_MAX];
	struct shmb_message m = { .fd_count = 9 };

	shake();
	ck_assert_int_eq(seal(&client, 1, body, SHMB_PACKET_LEN_MAX - 40), SHMB_PACKET_LEN_MAX);
	ck_assert_int_eq(open_packet(&broker, SHMB_PACKET_LEN_MAX), 0);
	ck_assert_int_eq(seal(&client, 1, body, SHMB_PACKET_LEN_MAX - 39), -EMSGSIZE);
	ck_assert_int_eq(seal(&client, 1, body, UINT32_MAX), -EMSGSIZE);
	ck_assert_int_eq(shmb_session_seal(&client, &m, packet), -EMSGSIZE);
}
END_TEST

START_TEST(rekeys_by_itself)
{
	struct shmb_noise_cipher before;
	int n;

	shake();
	for (uint32_t i = 0; i < 65535; i++) {
		n = seal(&client, 9, &i, sizeof(i));
		ck_assert_uint_eq(packet[3], 0);
		ck_assert_int_eq(open_packet(&broker, n), 0);
	}
	before = broker.receive;
	n = seal(&client, 9, NULL, 0);
	ck_assert_uint_eq(packet[3], SHMB_PACKET_REKEY_AFTER);
	ck_assert_int_eq(open_packet(&broker, n), 0);
	ck_assert_mem_ne(before.key, broker.receive.key, sizeof(before.key));
	n = seal(&client, 9, NULL, 0);
	ck_assert_uint_eq(packet[3], 0);
	ck_assert_int_eq(open_packet(&broker, n), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("session");
	TCase *tcase = tcase_create("session");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, carries_messages_both_ways);
	tcase_add_test(tcase, refuses_the_wrong_broker_key);
	tcase_add_test(tcase, refuses_every_flipped_bit_of_a_handshake);
	tcase_add_test(tcase, knows_other_versions);
	tcase_add_test(tcase, refuses_every_flipped_bit_of_a_record);
	tcase_add_test(tcase, refuses_lengths_that_do_not_add_up);
	tcase_add_test(tcase, bounds_what_it_seals);
	tcase_add_test(tcase, rekeys_by_itself);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
