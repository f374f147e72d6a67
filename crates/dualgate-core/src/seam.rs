//! The two seams between deciding and doing.
//!
//! Core only names them; the crates with IO implement them and `dualgate` composes.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use crate::model::ObjectSet;

/// Yields the complete set of objects each time something changed, never a delta.
pub trait Source {
    /// What can go wrong for good; what passes is retried inside and reported as findings of the set.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Waits for the next set. The first call returns once everything was read once.
    fn next(&mut self) -> impl Future<Output = Result<Arc<ObjectSet>, Self::Error>>;
}

/// Makes its part of the world equal to its part of the plan.
pub trait Actuator {
    /// Its part of the plan; also how it describes what is.
    type Plan;
    /// One difference, shown to people by `plan`.
    type Change: Display;
    /// Why the world could not be made so.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What is.
    fn observe(&mut self) -> impl Future<Output = Result<Self::Plan, Self::Error>>;

    /// What has to change: pure.
    fn diff(observed: &Self::Plan, desired: &Self::Plan) -> Vec<Self::Change>;

    /// Makes it so, all or nothing.
    fn apply(
        &mut self,
        desired: &Arc<Self::Plan>,
        changes: &[Self::Change],
    ) -> impl Future<Output = Result<(), Self::Error>>;
}
