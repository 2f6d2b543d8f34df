//! Streams as the formats' own tools write them, whole, joined, padded, cut, and followed by what is none.
