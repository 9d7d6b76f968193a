/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Both ends of the handshake. Packets of fuzzed bytes, and genuine packets with some bits changed,
 * are refused; genuine ones with fuzzed payloads arrive as they were sent.
 */

#include <errno.h>

#include <sodium.h>

#include "lib/session.h"

#include "tests/fuzz/fuzz.h"

static struct shmb_noise_keypair client_key, broker_key;

static void prepare(void)
{
	FUZZ_CHECK(sodium_init() >= 0);
	memset(client_key.secret, 0x17, sizeof(client_key.secret));
	memset(broker_key.secret, 0x29, sizeof(broker_key.secret));
	shmb_noise_public_from_secret(client_key.public, client_key.secret);
	shmb_noise_public_from_secret(broker_key.public, broker_key.secret);
}

static void check_refusal(int r)
{
	FUZZ_CHECK(r == -EKEYREJECTED || r == -EPROTONOSUPPORT);
}

/* Exactly as long as it is, so that reading behind it is seen. */
static void raw_packets(struct fuzz_script *script, struct shmb_session *client)
{
	struct shmb_handshake_1_payload p1;
	struct shmb_handshake_2_payload p2;
	struct shmb_session broker;
	uint32_t len = (uint32_t)script->left;
	uint8_t *packet = malloc(len ? len : 1);
	uint8_t key[SHMB_KEY_LEN];

	fuzz_bytes(script, packet, len);
	check_refusal(shmb_session_accept(&broker, &broker_key, packet, len, &p1, key));
	FUZZ_CHECK(!broker.ready);
	check_refusal(shmb_session_connected(client, packet, len, &p2));
	FUZZ_CHECK(!client->ready);
	shmb_session_deinit(&broker);
	free(packet);
}

static void answer(struct fuzz_script *script, struct shmb_session *client,
		   struct shmb_session *broker)
{
	struct shmb_handshake_2_payload p2 = { 0 }, got2;
	struct shmb_handshake_2 h2;
	uint32_t len = sizeof(h2);
	struct shmb_handshake_2 sent;
	int r;

	fuzz_mutate(script, &p2, sizeof(p2));
	FUZZ_CHECK(shmb_session_accepted(broker, &p2, &h2) == 0 && broker->ready);
	sent = h2;
	fuzz_mutate(script, &h2, sizeof(h2));
	len -= (uint32_t)(fuzz_number(script, 1) % sizeof(h2));
	r = shmb_session_connected(client, &h2, len, &got2);
	if (r < 0) {
		check_refusal(r);
		FUZZ_CHECK(!client->ready);
		FUZZ_CHECK(memcmp(&sent, &h2, sizeof(h2)) != 0 || len != sizeof(h2) ||
			   !sodium_is_zero(p2.zero, sizeof(p2.zero)));
		return;
	}
	FUZZ_CHECK(memcmp(&sent, &h2, sizeof(h2)) == 0);
	FUZZ_CHECK(client->ready && len == sizeof(h2) && sodium_is_zero(p2.zero, sizeof(p2.zero)));
	FUZZ_CHECK(got2.session_id == p2.session_id && got2.packet_len_max == SHMB_PACKET_LEN_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_script script = { data, size };
	struct shmb_handshake_1_payload p1 = { 0 }, got1;
	struct shmb_session client, broker;
	struct shmb_handshake_1 h1, sent;
	uint8_t key[SHMB_KEY_LEN];
	bool raw;
	int r;

	if (!client_key.secret[0])
		prepare();
	raw = fuzz_number(&script, 1) & 1;
	if (!raw)
		fuzz_mutate(&script, &p1, sizeof(p1));
	FUZZ_CHECK(shmb_session_connect(&client, &client_key, broker_key.public, &p1, &h1) == 0);
	if (raw) {
		raw_packets(&script, &client);
		shmb_session_deinit(&client);
		return 0;
	}
	sent = h1;
	fuzz_mutate(&script, &h1, sizeof(h1));
	r = shmb_session_accept(&broker, &broker_key, &h1, sizeof(h1), &got1, key);
	if (r == 0) {
		FUZZ_CHECK(memcmp(&sent, &h1, sizeof(h1)) == 0);
		FUZZ_CHECK(memcmp(&p1, &got1, sizeof(p1)) == 0);
		FUZZ_CHECK(memcmp(key, client_key.public, sizeof(key)) == 0);
		answer(&script, &client, &broker);
	} else {
		check_refusal(r);
		FUZZ_CHECK(memcmp(&sent, &h1, sizeof(h1)) != 0 ||
			   !sodium_is_zero(p1.zero, sizeof(p1.zero)));
	}
	shmb_session_deinit(&client);
	shmb_session_deinit(&broker);
	return 0;
}
