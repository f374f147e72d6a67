//! Rules and generated pages of the dualgate workspace.
fn main() {}
