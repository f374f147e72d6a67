//! dualgate: two gates, one home.
fn main() {}
