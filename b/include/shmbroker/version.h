/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_VERSION_H
#define SHMBROKER_VERSION_H

#define SHMB_VERSION_STRING   "0.1.0"
#define SHMB_LAYOUT_VERSION   1
#define SHMB_PROTOCOL_VERSION 1
/* Grows with each function that is added; a binding checks it when it loads the library. */
#define SHMB_ABI_VERSION 1

#endif
