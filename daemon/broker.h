/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_BROKER_H
#define SHMB_DAEMON_BROKER_H

/* A broker from start to stop. */

#include "daemon/model.h"

/**
 * broker_new() - start a broker: when this returns, clients can connect
 * @config: copied, but what it points to must outlive the broker
 * @ret_broker: stores the broker
 *
 * Context: the thread that will call broker_run(). The loop keeps the credentials of now.
 * Return: 0; -EADDRINUSE: one is running there; -EACCES: the directory is not safe; another
 *	   negative errno value; each with a sentence.
 */
int broker_new(const struct broker_config *config, struct broker **ret_broker);

/**
 * broker_run() - serve until loop_stop()
 * @broker: broker
 *
 * Return: what loop_stop() was given; or the error of the loop.
 */
int broker_run(struct broker *broker);

/**
 * broker_fall_back() - go on with epoll
 * @broker: broker_run() has returned -EPERM or -ENOSYS: a sandbox forbids io_uring by now; replaced
 *
 * Clients come back by themselves, as after a restart.
 *
 * Return: as broker_new().
 */
int broker_fall_back(struct broker **broker);

/**
 * broker_free() - stop a broker
 * @broker: or NULL; not running
 *
 * If clients live on (and its configuration does not say otherwise), their memory and the registry
 * stay for a successor; else nothing stays.
 *
 * Return: NULL.
 */
struct broker *broker_free(struct broker *broker);

/* New rules and limits. What was granted under the old ones stays granted. */
void broker_reload(struct broker *broker, const struct policy *policy,
		   const struct quota_limits *limits, const struct quota_rule *rules,
		   uint32_t n_rules);

#endif
