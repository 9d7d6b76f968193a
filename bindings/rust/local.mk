TESTS += %D%/tests.sh
choosy_logs += %D%/tests.log
EXTRA_DIST += \
	%D%/Cargo.toml \
	%D%/README.md \
	%D%/rustfmt.toml \
	%D%/tests.sh \
	%D%/shmbroker-sys/Cargo.toml \
	%D%/shmbroker-sys/build.rs \
	%D%/shmbroker-sys/src/lib.rs \
	%D%/shmbroker-sys/tests/header.rs \
	%D%/shmbroker/Cargo.toml \
	%D%/shmbroker/build.rs \
	%D%/shmbroker/examples/aggregate.rs \
	%D%/shmbroker/examples/call.rs \
	%D%/shmbroker/examples/common/mod.rs \
	%D%/shmbroker/examples/conflate.rs \
	%D%/shmbroker/examples/hold-frames.rs \
	%D%/shmbroker/examples/pass-files.rs \
	%D%/shmbroker/examples/priorities.rs \
	%D%/shmbroker/examples/publish-frames.rs \
	%D%/shmbroker/examples/publish.rs \
	%D%/shmbroker/examples/serve.rs \
	%D%/shmbroker/examples/set-state.rs \
	%D%/shmbroker/examples/submit.rs \
	%D%/shmbroker/examples/subscribe.rs \
	%D%/shmbroker/examples/take-files.rs \
	%D%/shmbroker/examples/watch-state.rs \
	%D%/shmbroker/examples/work.rs \
	%D%/shmbroker/src/broker.rs \
	%D%/shmbroker/src/call.rs \
	%D%/shmbroker/src/call_lease.rs \
	%D%/shmbroker/src/channel.rs \
	%D%/shmbroker/src/client.rs \
	%D%/shmbroker/src/error.rs \
	%D%/shmbroker/src/lib.rs \
	%D%/shmbroker/src/publisher.rs \
	%D%/shmbroker/src/queue.rs \
	%D%/shmbroker/src/schema.rs \
	%D%/shmbroker/src/state.rs \
	%D%/shmbroker/src/subscriber.rs \
	%D%/shmbroker/src/waitset.rs \
	%D%/shmbroker/tests/blocks.rs \
	%D%/shmbroker/tests/call.rs \
	%D%/shmbroker/tests/call_blocks.rs \
	%D%/shmbroker/tests/examples.rs \
	%D%/shmbroker/tests/channels.rs \
	%D%/shmbroker/tests/common/mod.rs \
	%D%/shmbroker/tests/fds.rs \
	%D%/shmbroker/tests/processes.rs \
	%D%/shmbroker/tests/queue.rs \
	%D%/shmbroker/tests/records.rs \
	%D%/shmbroker/tests/schema.rs \
	%D%/shmbroker/tests/state.rs \
	%D%/shmbroker/tests/waitset.rs

clean-local: clean-rust
clean-rust:
	rm -rf %D%/copy %D%/target
.PHONY: clean-rust
