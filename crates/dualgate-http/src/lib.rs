//! Pure HTTP/1.1: codec, framing rules, canonical paths, header patches.
