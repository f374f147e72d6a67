//! The table itself.

/// Placeholder shapes until the table is written.
#[derive(Clone, Debug, Default)]
pub struct Table;
/// One candidate.
#[derive(Clone, Debug)]
pub struct Candidate;
/// Why one lost.
#[derive(Clone, Debug)]
pub enum Lost {}
