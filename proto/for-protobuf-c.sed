# protoc-c up to 1.4 refuses proto3's `optional`. A oneof of one member means the same,
# on the wire and in presence: that is how protoc itself builds an optional field.
# To be removed when Debian's protobuf-c reads `optional`.
s/^\( *\)optional \([a-z0-9]*\) \([a-z_]*\) = \([0-9]*\);/\1oneof has_\3 { \2 \3 = \4; }/
