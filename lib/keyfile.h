/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_KEYFILE_H
#define SHMB_LIB_KEYFILE_H

/*
 * X25519 keys in text files: "shmbroker-private-key-v1\nx25519:<base64url of 32 bytes>\n" and
 * "x25519:<base64url> name [comment]\n". Loading refuses what others could read or write.
 */

#include <stdint.h>

#include "lib/noise.h"

/**
 * shmb_keyfile_load_private() - load a private key
 * @path: of the file
 * @keypair: filled
 *
 * Return: 0; -ENOENT; -EACCES: a link, not regular, owned by another, readable by others; -EINVAL:
 *	   not a private key; each with a sentence.
 */
int shmb_keyfile_load_private(const char *path, struct shmb_noise_keypair *keypair);

/**
 * shmb_keyfile_load_public() - load the first public key of a file
 * @path:   of the file
 * @public_key: filled, 32 bytes
 *
 * Return: 0; -ENOENT; -EACCES: not regular, writable by group or others, owned by neither root nor
 *	   this user nor the owner of its directory; -EINVAL; each with a sentence.
 */
int shmb_keyfile_load_public(const char *path, uint8_t public_key[SHMB_NOISE_KEY_LEN]);

/**
 * shmb_keyfile_write_private() - write a new private key file, mode 0600
 * @path:    must not exist
 * @keypair: key
 *
 * Return: 0; -EEXIST; another negative errno value; with a sentence.
 */
int shmb_keyfile_write_private(const char *path, const struct shmb_noise_keypair *keypair);

/**
 * shmb_keyfile_write_public() - write or replace a public key file, mode 0644
 * @path:	of the file; replaced atomically
 * @public_key: 32 bytes
 * @name:	of the key, [a-z0-9._-]+
 *
 * Return: 0 or a negative errno value, with a sentence.
 */
int shmb_keyfile_write_public(const char *path, const uint8_t public_key[SHMB_NOISE_KEY_LEN],
			      const char *name);

#endif
