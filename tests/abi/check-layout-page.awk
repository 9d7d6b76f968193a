#!/usr/bin/awk -f
# Compares the tables of shmbroker-layout(5) with layout.golden: each field of the structs in shared
# memory is in a table, with its offset and its size.
FNR == NR {
	if ($1 ~ /^shmb_(lane_segment|cursor_lane|queue_address|cursor_work|state_key|call_server|cell_slot|cursor_segment|bell_segment|arena_segment|block_limits|block_descriptor|fds_packet|cursor_hold|channel_segment|registry_entry|registry_segment|segment_header|schema|schema_field)\./) {
		split($1, name, ".")
		want[name[2] " " $2 " " $3] = $1
	}
	next
}
/^\.It [0-9]+ Ta [a-z]/ {
	type = $4; field = $6; len = 0
	if (type ~ /^u64\[/ && match(type, /\[[0-9]+\]/))
		len = 8 * substr(type, RSTART + 1, RLENGTH - 2)
	else if (type ~ /^(u|char)/ && match(type, /\[[0-9]+\]/))
		len = substr(type, RSTART + 1, RLENGTH - 2)
	else if (type ~ /^mark/)
		len = 256
	else if (type ~ /^hold/)
		len = 2080
	else if (type ~ /^limits/)
		len = 32
	else {
		len = type; sub(/^u/, "", len); len /= 8
	}
	seen[field " " $2 " " len] = 1
}
END {
	for (key in want)
		if (!(key in seen) && want[key] !~ /\.header$/) {
			print "shmbroker-layout(5) does not say: " want[key] " (" key ")"
			bad = 1
		}
	for (key in seen)
		if (!(key in want)) {
			print "shmbroker-layout(5) has a field that does not exist: " key
			bad = 1
		}
	exit bad
}
