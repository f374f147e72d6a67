//! Pure wire formats: bytes to typed meaning and back.
