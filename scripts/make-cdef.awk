# Makes shmbroker.cdef, what declaration parsers (cffi, LuaJIT, ctypesgen) accept: no directives,
# no macros, no attributes, no function bodies. Input: first the preprocessed headers, with line
# markers; then, after a line "---", the text of the headers, for their constants. The caller says
# which headers are ours: only lines from a file .../shmbroker/*.h are kept.
BEGIN {
	print "/* Generated from the headers of shmbroker: declarations for parsers. */"
	print ""
}
/^---$/ { constants = 1; print "enum {"; next }
constants {
	sub(/[ \t]*\/\*.*/, "")
	# Values that do not fit an int are left out: enum constants are ints.
	if (!/^#define SHMB_[A-Z0-9_]+[ \t]+[^ \t"\\]/ || $2 ~ /\(/ || /ull/) next
	name = $2; value = $0
	sub(/^#define [A-Z0-9_]+[ \t]+/, "", value)
	value = value " "
	while (match(value, /[0-9a-fA-F][uUlL]+[^a-zA-Z0-9]/))
		value = substr(value, 1, RSTART) substr(value, RSTART + RLENGTH - 1)
	sub(/ +$/, "", value)
	if (value ~ /^[-0-9a-fA-Fx()<> ]+$/ && value !~ /<< 31/) print "\t" name " = " value ","
	next
}
/^# [0-9]+ "/ { ours = $3 ~ /\/shmbroker\/[a-z]+\.h"$/; next }
!ours || (/^[ \t]*$/ && statement == "") || /^#/ { next }
{
	statement = statement $0 "\n"
	line = $0
	depth += gsub(/\{/, "", line); line = $0
	depth -= gsub(/\}/, "", line)
	if (depth > 0 && statement !~ /^(struct|enum|union)[^;(]*\{/) body = 1
	if (depth > 0 || !(body || /;[ \t]*$/)) next
	if (body && !/\}/) next
	if (statement !~ /^(_Static_assert|static|typedef)/) {
		if (body) {
			sub(/[ \t\n]*\{.*/, ";\n", statement)
			gsub(/\n[ \t]+/, " ", statement)
		}
		if (statement ~ /shmb_lane_word/) statement = ""
		gsub(/[ \t]*\n[ \t\n]*\n/, "\n", statement)
		sub(/^[ \t]+/, "", statement)
		printf "%s", statement
	}
	statement = ""; body = 0
}
END { print "};" }
