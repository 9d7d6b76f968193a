# Lists what the headers define, as macro calls that layout.c turns into its output:
#	STRUCT(type) FIELD(type, field) END(type)   each struct and its fields, padding left out
#	NUMBER(name) or TEXT(name)		    each constant
# It relies on the headers being formatted by .clang-format.
FNR == 1 { print "HEADER(\"" substr(FILENAME, match(FILENAME, /[^\/]*$/)) "\")" }
/^#define SHMB_[A-Z0-9_]+[ \t]+[^ \t\\]/ && $2 !~ /\(/ && !/^#define SHMB_(INLINE|LAYOUT_ASSERT)/ {
	value = $0; sub(/^#define [A-Z0-9_]+[ \t]+/, "", value)
	print (value ~ /^"/ ? "TEXT(" : "NUMBER(") $2 ")"
}
/^struct shmb_[a-z0-9_]+ \{$/ { type = $2; print "STRUCT(" type ")"; next }
/^\};/ && type { print "END(" type ")"; type = ""; next }
type && /;/ {
	field = $0
	sub(/;.*/, "", field); sub(/\[.*/, "", field); sub(/.*[ \t*]/, "", field)
	if (field !~ /^(pad[0-9]*|zero)$/) print "FIELD(" type ", " field ")"
}
